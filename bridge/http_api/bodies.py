"""What clients send: one JSON object per request, read within bounds."""

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
    """`POST /api/login`. `device`: what the client calls itself; it is only logged."""

    user_id: str
    password: str
    device: Short | None = None


class Refresh(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/refresh`."""

    refresh_token: str


class Logout(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/logout`. `all`: end all logins of the user."""

    refresh_token: str | None = None
    all: bool = False


class Register(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /api/register`."""

    user_id: str
    password: str
    name: str = ""


async def read(request: Request, kind: type[T]) -> T:
    """The body as a `kind`. Nothing at all stands for an object without fields.

    Raises:
        HTTPException: 400, 408, 413 or 415; its text says why, by field.
    """
    data = await _read(request)
    if data and _media_type(request) != "application/json":
        raise HTTPException(415, "the body must be application/json")
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise HTTPException(400, str(error)) from None
    except RecursionError:
        raise HTTPException(400, "nested too deeply") from None


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY:
                    raise HTTPException(413, f"a body has at most {MAX_BODY} bytes", _CLOSE)
    except TimeoutError:
        raise HTTPException(408, "the body did not come in time", _CLOSE) from None
    return bytes(data)


# What is left of the body is not read.
_CLOSE = {"connection": "close"}
