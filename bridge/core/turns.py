"""Per-key locks, granted in order of arrival."""

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
    """A lock for each key, granted in order of arrival."""

    def __init__(self) -> None:
        # Weak: a lock exists only as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[K, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, key: K) -> AsyncIterator[None]:
        """Wait for the lock of a key, and hold it while the context lasts."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    @asynccontextmanager
    async def of_all(self, keys: Iterable[K]) -> AsyncIterator[None]:
        """Hold the locks of several keys. All callers must name their keys in the same order, else two of
        them could wait for each other for ever."""
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
    """Run a handler while it holds the lock of its group. A change of a group succeeds only if the group has
    not changed since the handler read it. Without the lock, one of many concurrent changes would succeed
    and all others would have to run again (see `retrying`)."""

    @wraps(handler)
    async def call(self: S, caller: Caller, parameters: P) -> R:
        async with self.turns.of(parameters.group_id):
            return await handler(self, caller, parameters)

    return call
