"""RPC over MQTT: `users/<me>/rpc/<method>` in, `users/<me>/replies` out (contract.md, "RPC").

A request is a JSON object: the method's parameters and, to tell replies apart, a `request_id`.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from broker.domain.errors import StoreError
from broker.domain.topics import parse_topic
from broker.ports import BridgePort, DirectoryError

logger = logging.getLogger(__name__)

P = TypeVar("P", bound=msgspec.Struct)

MAX_REQUEST_ID = 128


class RpcError(Exception):
    """A call that is answered with an error: the contract's `code`, and words."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class _Failure(msgspec.Struct):
    code: str
    detail: str


class _Reply(msgspec.Struct, omit_defaults=True):
    ok: bool
    request_id: str | None = None
    result: Any = None
    error: _Failure | None = None


_Method = tuple[type[msgspec.Struct], Callable[[str, Any], Awaitable[Any]]]


class RpcServer:
    """Methods by name. A handler is called with the caller's user id and its parameters."""

    def __init__(self, port: BridgePort) -> None:
        self._port = port
        self._methods: dict[str, _Method] = {}
        port.subscribe("users/+/rpc/+", self._called)

    def add(self, method: str, parameters: type[P], handler: Callable[[str, P], Awaitable[Any]]) -> None:
        """Offer a method; `parameters` is the type its JSON must have."""
        self._methods[method] = (parameters, handler)

    async def _called(self, name: str, payload: bytes) -> None:
        topic = parse_topic(name)
        request_id = None
        try:
            request = _request(payload)
            request_id = request.pop("request_id", None)
            if request_id is not None and not _is_request_id(request_id):
                request_id = None
                raise RpcError("invalid_params", f"request_id: a string of 1 to {MAX_REQUEST_ID} characters")
            reply = _Reply(True, request_id, await self._call(topic.owner, topic.method, request))
        except (RpcError, DirectoryError) as error:
            reply = _Reply(False, request_id, error=_Failure(error.code, error.detail))
        except StoreError as error:
            logger.error("%r failed: %s", name, error)
            reply = _Reply(
                False, request_id, error=_Failure("unavailable", "the store failed, try again later")
            )
        except Exception:
            logger.exception("%r failed", name)
            reply = _Reply(False, request_id, error=_Failure("internal", "internal error"))
        await self._port.publish(f"users/{topic.owner}/replies", msgspec.json.encode(reply))

    async def _call(self, user: str, method: str, request: dict[str, Any]) -> Any:
        known = self._methods.get(method)
        if known is None:
            raise RpcError("unknown_method", f"there is no method {method[:64]!r}")
        parameters, handler = known
        try:
            values = msgspec.convert(request, parameters)
        except msgspec.ValidationError as error:
            raise RpcError("invalid_params", str(error)) from None
        return await handler(user, values)


def _request(payload: bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(payload or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RpcError("invalid_params", f"not valid JSON: {error}") from None
    if not isinstance(request, dict):
        raise RpcError("invalid_params", "expected a JSON object")
    return request


def _is_request_id(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= MAX_REQUEST_ID
