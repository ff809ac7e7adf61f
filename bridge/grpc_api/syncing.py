"""`SyncMessages`: calls the operation `messages.sync` again and again, and streams what it returns.

A page is read only after the client has taken all entries of the page before, so at most one page waits
in memory. Each read checks the caller's permissions. When they may have changed, the rest of the page is
dropped and read again: nobody gets an entry that they may no longer read.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import msgspec

from bridge.core.operations import Caller, Operations
from bridge.core.turns import Turns
from bridge.grpc_api.authentication import CALL
from bridge.grpc_api.changes import Changes
from bridge.grpc_api.im_pb2 import SyncedEntry, SyncRequest
from bridge.handlers.messages import SyncResult
from broker.domain.errors import RefusedError
from broker.domain.topics import group_topic
from broker.ports import BrokerPort, DirectoryChange, GroupChanged, MembershipChanged

MAX_TOPICS = 1000

_OPERATION = "messages.sync"
_PAGE = 100
_LOST = ("not_member", "not_found", "banned")


_Sync = Callable[[Caller, dict[str, Any]], Awaitable[SyncResult]]
"""Calls the operation with its parameters."""


class _Placed(msgspec.Struct):
    offset: int


_offset = msgspec.json.Decoder(_Placed).decode


class Syncing:
    """Serves `SyncMessages`: each call gets a stream of its own."""

    def __init__(self, operations: Operations, broker: BrokerPort, changes: Changes) -> None:
        self._operations = operations
        self._broker = broker
        self._changes = changes
        # By user. A stream may read a thousand logs, and a user may have hundreds of streams: read all at
        # once, they would leave the others little of the event loop.
        self._turns: Turns[str] = Turns()

    async def __call__(self, request: SyncRequest, context: Any) -> AsyncGenerator[SyncedEntry, None]:
        """The stream of one call. With `follow` it lasts until the client cancels it."""
        tour = _Tour(CALL.get().caller, request, self._ask, self._broker)
        unwatch = self._changes.watch(tour.changed) if request.follow else None
        try:
            await tour.begin()
            await context.send_initial_metadata(())  # tells the client that the request was accepted
            while True:
                while tour.news:
                    await tour.watch_new()
                    topic = next(iter(tour.news))
                    for entry in await tour.page(topic):
                        yield entry
                        tour.cursors[topic] = entry.offset
                        if topic in tour.doubted:  # changed while the client took the entry
                            break
                if not request.follow:
                    return
                await tour.wait()
        finally:
            tour.end()
            if unwatch is not None:
                unwatch()

    async def _ask(self, caller: Caller, parameters: dict[str, Any]) -> SyncResult:
        async with nullcontext() if caller.is_system else self._turns.of(caller.user):
            result: SyncResult = await self._operations.call(caller, _OPERATION, parameters)
            return result


class _Tour:
    """The state of one stream: its cursor in each log, and the logs that have new entries."""

    def __init__(self, caller: Caller, request: SyncRequest, sync: _Sync, broker: BrokerPort) -> None:
        self._caller = caller
        self._sync = sync
        self._broker = broker
        self._follow = request.follow
        self._generation = request.generation if request.HasField("generation") else None
        self._all = request.all_logs or not request.cursors
        self._wake = asyncio.Event()
        self._watches: dict[str, Callable[[], None]] = {}
        self._unwatched: list[str] = []
        self.cursors: dict[str, int] = dict(request.cursors)
        self.news: dict[str, None] = {}
        """Topics that may have new entries, the longest waiting first (a dict keeps their order)."""
        self.doubted: set[str] = set()
        """Topics whose permissions may have changed since their page was read."""

    async def begin(self) -> None:
        """Find the logs to read, and check that the caller may read those that the request names. Raises
        what `messages.sync` raises."""
        if len(self.cursors) > MAX_TOPICS:
            raise RefusedError("invalid_params", f"cursors: at most {MAX_TOPICS} topics")
        topics = list(self.cursors)
        if self._all:
            topics += (await self._ask({"limit": 1})).cursors
        await self._check(self.cursors)
        for topic in topics:
            self._add(topic)

    async def _check(self, cursors: Mapping[str, int]) -> None:
        """Check the cursors of the request. Those of another generation are refused here; from then on they
        are this one's."""
        if not cursors:
            return
        try:
            await self._ask({"limit": 1, "cursors": cursors, "generation": self._generation})
        except RefusedError as error:
            if not self._all or error.code not in _LOST:
                raise
            if len(cursors) > 1:  # one of all logs cannot be read any more: which of them?
                for topic, cursor in cursors.items():
                    await self._check({topic: cursor})

    async def wait(self) -> None:
        """Wait until a log may have new entries."""
        self._wake.clear()
        if not self.news:
            await self._wake.wait()

    def end(self) -> None:
        """Stop watching all logs."""
        while self._watches:
            self._watches.popitem()[1]()

    def _add(self, topic: str) -> None:
        self.cursors.setdefault(topic, 0)
        if self._follow and topic not in self._watches:
            self._unwatched.append(topic)
        self._notice(topic)

    async def watch_new(self) -> None:
        """Watch the logs that were added. They are watched before they are read, so no entry is missed."""
        while self._unwatched:
            topic = self._unwatched.pop()
            if topic not in self._watches:
                self._watches[topic] = await self._broker.watch(topic, partial(self._notice, topic))

    def _notice(self, topic: str) -> None:
        self.news[topic] = None
        self._wake.set()

    def changed(self, change: DirectoryChange) -> None:
        """A change of the directory: it may have changed which logs the caller may read."""
        match change:
            case MembershipChanged(group_id, user_id, member) if user_id == self._caller.user:
                if member and self._all:
                    self._add(group_topic(group_id))
            case GroupChanged(group):
                group_id = group.group_id
            case _:
                return
        topic = group_topic(group_id)
        if topic in self._watches:
            self.doubted.add(topic)
            self._notice(topic)

    async def page(self, topic: str) -> list[SyncedEntry]:
        """The next page of a log. If there are more entries, the topic goes to the end of `news`, so that
        a long log does not hold up the others."""
        self.news.pop(topic, None)
        self.doubted.discard(topic)
        cursor = self.cursors[topic]
        try:
            result = await self._ask({"limit": _PAGE, "cursors": {topic: cursor}})
        except RefusedError as error:
            if not self._all or error.code not in _LOST:
                raise
            # The caller lost the right to read one of all their logs: the stream goes on without it.
            if topic in self._watches:
                self._watches.pop(topic)()
            return []
        if result.more:
            self.news[topic] = None
        if not result.messages:
            self.cursors[topic] = result.cursors[topic]
        return [
            SyncedEntry(
                topic=topic,
                offset=_offset(message).offset,
                json=bytes(message),
                generation=result.generation,
            )
            for message in result.messages
        ]

    async def _ask(self, parameters: dict[str, Any]) -> SyncResult:
        return await self._sync(self._caller, parameters)
