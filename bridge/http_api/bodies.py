"""Request bodies: one JSON object each, of limited size and read within limited time."""

import asyncio
from typing import Annotated, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_BODY = 16 * 1024
"""Bytes."""
BODY_SECONDS = 10.0

T = TypeVar("T")

Short = Annotated[str, msgspec.Meta(max_length=128)]


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/login`. `device` is the client's name for itself; it is only logged."""

    user_id: str
    password: str
    device: Short | None = None


class Refresh(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/refresh`."""

    refresh_token: str


class Logout(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/logout`. `all`: revoke all tokens of the user."""

    refresh_token: str | None = None
    all: bool = False


class Register(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/register`."""

    user_id: str
    password: str
    name: str = ""


async def read(request: Request, kind: type[T]) -> T:
    """The body, decoded as a `kind`. An empty body means `{}`.

    Raises:
        HTTPException: 400 (not valid), 408 (too slow), 413 (too large) or 415 (not JSON). The text says
            why and names the field.
    """
    data = await _read(request)
    if data and _media_type(request) != "application/json":
        raise HTTPException(415, "the body must be application/json")
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise HTTPException(400, str(error)) from None
    except RecursionError:
        raise HTTPException(400, "the body is nested too deeply") from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY:
                    raise HTTPException(413, f"the body has more than {MAX_BODY} bytes", _CLOSE)
    except TimeoutError:
        raise HTTPException(408, "the body did not arrive in time", _CLOSE) from None
    return bytes(data)


# The rest of the body stays unread, so the connection cannot serve another request.
_CLOSE = {"connection": "close"}
