"""Optimistic concurrency: a handler reads the directory, works out a change and writes it. If another
change came first, the directory refuses with `conflict`, and the handler runs again on what is there now."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from broker.ports import DirectoryError

P = ParamSpec("P")
R = TypeVar("R")

_ATTEMPTS = 5


def retrying(handler: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Run a handler again while the directory refuses with `conflict`, at most `_ATTEMPTS` times. The last
    `conflict` is raised."""

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
