"""Failures as HTTP responses: a status, and `{"error": {"code": …, "detail": …}}`."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from broker.domain.acting import acting_for
from broker.domain.attempts import TooManyAttemptsError
from broker.domain.errors import StoreError
from broker.ports import DirectoryError

logger = logging.getLogger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

RETRY_SECONDS = 2
"""The `Retry-After` of a 503: a store failed, or too many passwords are being checked."""

_STATUSES = {
    "invalid": 400,
    "unauthenticated": 401,
    "not_found": 404,
    "exists": 409,
    "conflict": 409,
    "unavailable": 503,
}
"""HTTP status by error code. All other codes mean that a rule forbids the request: 403."""

_CODES = {400: "invalid", 404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "too_large"}
_CODES[415] = "unsupported_media_type"


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response. It may hold tokens, so caches must not store it."""
    fixed = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(msgspec.json.encode(value), status, fixed | dict(headers or {}))


def describe(error: Exception, what: str) -> Response:
    """The response to an error that request `what` raised. Details of an unexpected error go to the log
    only: the client gets `internal error`."""
    match error:
        case HTTPException():
            code = _CODES.get(error.status_code, "invalid")
            return _refusal(error.status_code, code, error.detail, error.headers)
        case DirectoryError():
            status = _STATUSES.get(error.code, 403)
            return _refusal(status, error.code, error.detail, _headers(status))
        case TooManyAttemptsError():
            wait = {"retry-after": str(math.ceil(error.seconds))}
            return _refusal(429, "rate_limited", str(error), wait)
        case StoreError():
            logger.error("%s: the store failed: %s", what, error)
            return _refusal(503, "unavailable", "the store failed, try again later", _headers(503))
        case ClientDisconnect():
            return Response(status_code=400)  # nobody is left to read it
    logger.error("%s failed", what, exc_info=error)
    return _refusal(500, "internal", "internal error")


def _headers(status: int) -> dict[str, str]:
    if status == 401:  # required by RFC 9110, 15.5.2
        return {"www-authenticate": "Bearer"}
    return {"retry-after": str(RETRY_SECONDS)} if status == 503 else {}


def _refusal(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    return answer({"error": {"code": code, "detail": detail}}, status, headers)


def guarded(endpoint: Endpoint) -> Endpoint:
    """The endpoint, with a response for every exception it raises."""

    async def call(request: Request) -> Response:
        acting_for(f"@{request.client.host}" if request.client is not None else "@")
        try:
            return await endpoint(request)
        except asyncio.CancelledError:  # the node is stopping, and the request outlasted its grace time
            return _refusal(503, "unavailable", "the node is stopping", _headers(503))
        except Exception as error:
            return await failed(request, error)

    return call


async def failed(request: Request, error: Exception) -> Response:
    """`describe` as a Starlette exception handler."""
    return describe(error, f"{request.method} {request.url.path}")
