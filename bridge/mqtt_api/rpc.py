"""RPC over MQTT: decodes the requests published to `users/<me>/rpc/<method>` and encodes the replies.

A request is a JSON object: the parameters of an operation and an optional `request_id`. docs/api.md
describes the format.
"""

import logging
from typing import Any

import msgspec

from bridge.core.operations import Caller, Operations
from broker.domain.errors import RefusedError, StoreError

logger = logging.getLogger(__name__)

MAX_REQUEST_ID = 128


class _Reply(msgspec.Struct, omit_defaults=True):
    ok: bool
    request_id: str | None = None
    result: Any = None
    error: dict[str, object] | None = None


class RpcServer:
    """Runs the operations that users call over MQTT."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def call(self, user: str, method: str, payload: bytes, client_id: str = "") -> bytes:
        """Run what a user's client published to `users/<user>/rpc/<method>`, and return the reply as JSON.
        Never raises: every failure becomes a reply with an error."""
        request_id = None
        try:
            request = _request(payload)
            request_id = request.pop("request_id", None)
            if request_id is not None and not _is_request_id(request_id):
                request_id = None
                raise _invalid(f"request_id: expected a string of 1 to {MAX_REQUEST_ID} characters")
            result = await self._operations.call(Caller(user, client_id=client_id), method, request)
            reply = _Reply(True, request_id, result)
        except RefusedError as error:
            reply = _Reply(False, request_id, error={**_failure(error.code, error.detail), **error.facts})
        except StoreError as error:
            logger.error("%s called by %s failed: %s", method, user, error, extra=_about(user, method))
            failure = _failure("unavailable", "the store failed, try again later")
            reply = _Reply(False, request_id, error=failure)
        except Exception:
            logger.exception("%s called by %s failed", method, user, extra=_about(user, method))
            reply = _Reply(False, request_id, error=_failure("internal", "internal error"))
        return msgspec.json.encode(reply)


def _failure(code: str, detail: str) -> dict[str, object]:
    return {"code": code, "detail": detail}


def _about(user: str, method: str) -> dict[str, str]:
    """As whose line, and for what reason, a log line is summed up."""
    return {"client": user, "reason": method}


def _invalid(detail: str) -> RefusedError:
    return RefusedError("invalid_params", detail)


def _request(payload: bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(payload or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(f"the payload is not valid JSON: {error}") from None
    if not isinstance(request, dict):
        raise _invalid("the payload is not a JSON object")
    return request


def _is_request_id(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_REQUEST_ID
