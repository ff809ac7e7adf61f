"""Changes of the directory are worked out from what was read; if that has changed, once more."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from broker.ports import DirectoryError

P = ParamSpec("P")
R = TypeVar("R")

_ATTEMPTS = 5


def retrying(handler: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Run a handler again while the directory says `conflict`."""

    @wraps(handler)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_ATTEMPTS - 1):
            try:
                return await handler(*args, **kwargs)
            except DirectoryError as error:
                if error.code != "conflict":
                    raise
        return await handler(*args, **kwargs)

    return call
