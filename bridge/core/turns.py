"""What must not happen at the same time to the same thing happens one after another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import wraps
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from bridge.core.operations import Caller

K = TypeVar("K", bound=Hashable)
P = TypeVar("P", bound="_OfGroup")
R = TypeVar("R")


class Turns(Generic[K]):
    """One at a time for each key, in the order they came."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[K, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, key: K) -> AsyncIterator[None]:
        """Wait for one's turn, and have it while the context lasts."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    @asynccontextmanager
    async def of_all(self, keys: Iterable[K]) -> AsyncIterator[None]:
        """The turns of some keys; all who wait for several name them in the same order."""
        async with AsyncExitStack() as stack:
            for key in keys:
                await stack.enter_async_context(self.of(key))
            yield


class _OfGroup(Protocol):
    @property
    def group_id(self) -> str: ...


class _HasGroupTurns(Protocol):
    @property
    def turns(self) -> Turns[str]: ...


S = TypeVar("S", bound=_HasGroupTurns)


def in_turn(handler: Callable[[S, Caller, P], Awaitable[R]]) -> Callable[[S, Caller, P], Awaitable[R]]:
    """Run the changes of a group one after another. Each is worked out from what was read: of many at
    the same time one would succeed, and all others begin anew."""

    @wraps(handler)
    async def call(self: S, caller: Caller, parameters: P) -> R:
        async with self.turns.of(parameters.group_id):
            return await handler(self, caller, parameters)

    return call
