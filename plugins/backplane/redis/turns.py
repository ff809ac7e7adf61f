"""Turns: which node appends to which logs.

The hash `<prefix>{turn}:<log>` says whose turn it is and who comes next, and has the head that was committed
last. All keys have one hash tag, because one call takes several of them. What is given back and what is
taken next go in one call, and calls take effect in their order.
"""

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import msgspec

from broker.ports import Head, Taken

from .calls import Calls
from .finder import Finder
from .frames import FREED
from .options import RedisOptions

logger = logging.getLogger(__name__)

_LEASE_SECONDS = 1.0
_RENEW_SECONDS = 0.35
_LIFE_SECONDS = 3600
_ATTEMPTS = 3
_PATIENCE_MS = 50
_LONGEST_PATIENCE_MS = 250
_FREED_SECONDS = 0.05
"""A log may be free without a word: it was kept for a node that did not come."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode


def turns_key(options: RedisOptions) -> str:
    """What the keys of all logs begin with."""
    return f"{options.prefix}{{turn}}:{options.store}:"


class RedisTurns:
    """See `broker.ports.Turns`."""

    def __init__(self, options: RedisOptions, name: str) -> None:
        self._key = turns_key(options)
        self._process = f"{name}#{secrets.token_hex(8)}"
        """Whose turn it is. A node that was started again does not have those of its earlier process."""
        self._channels = options.prefix + "message:"
        timeout = min(options.timeout, _LEASE_SECONDS)
        self.calls = Calls(Finder(options, self._key), timeout, ("turns", "renew"))
        self._held: dict[str, None] = {}
        self._given: dict[str, bytes] = {}
        """Logs to give back, and their heads."""
        self._is_scheduled = False
        self._renewing: asyncio.Task[None] | None = None
        self._freed = asyncio.Event()
        self._waiting: dict[str, float] = {}
        """The first log of each group that waits -> since when."""
        self._taken_at = 0.0
        self._kept_for = 0.0
        """Seconds from the last turn to its end."""

    def start(self) -> None:
        """Connect, and renew what is held, again and again."""
        self.calls.wire.start()
        self._renewing = asyncio.get_running_loop().create_task(self._keep_renewing())

    async def close(self) -> None:
        """Give everything back."""
        if self._renewing is not None:
            self._renewing.cancel()
        self._given |= dict.fromkeys(self._held, b"")
        self._flush()
        await self.calls.wire.close()

    async def take(self, groups: Sequence[Sequence[str]]) -> Taken:
        """See `Turns`."""
        loop = asyncio.get_running_loop()
        index: dict[str, int] = {}
        numbers = [[index.setdefault(log, len(index) + 1) for log in logs] for logs in groups]
        for _ in range(_ATTEMPTS):
            self._freed.clear()
            started = loop.time()
            try:
                flags, *heads = await self._run(list(index), numbers)
            except OSError as error:
                logger.debug("taking turns: %s", error)
                break
            self._taken_at = loop.time()
            if self._taken_at - started < _LEASE_SECONDS:
                return self._taken(groups, [flag == 49 for flag in flags], index, heads, started)
            # This process stood still for so long that its turns have lapsed already.
        self._held |= dict.fromkeys(index)
        return Taken([True] * len(groups), {})

    def _run(self, logs: list[str], numbers: list[list[int]]) -> asyncio.Future[Any]:
        given, self._given = self._given, {}
        return self.calls.run("turns", self._key, *self._request(given, logs, numbers))

    def _request(self, given: Mapping[str, bytes], logs: list[str], numbers: list[list[int]]) -> list[bytes]:
        lease, patience = int(_LEASE_SECONDS * 1000), self._patience_ms()
        about = (self._process, lease, patience, self._waited_ms(), _LIFE_SECONDS, self._channels)
        return [_encode((*about, list(given), logs, numbers)), FREED, *given.values()]

    def _taken(
        self,
        groups: Sequence[Sequence[str]],
        granted: list[bool],
        index: dict[str, int],
        heads: list[Any],
        asked_at: float,
    ) -> Taken:
        waiting: dict[str, float] = {}
        for logs, is_mine in zip(groups, granted, strict=True):
            if is_mine:
                self._held |= dict.fromkeys(logs)
            else:
                waiting[logs[0]] = self._waiting.get(logs[0], asked_at)
        self._waiting = waiting
        known = zip(index, heads, strict=True)
        return Taken(granted, {log: _decode(head) for log, head in known if head is not None})

    def _patience_ms(self) -> int:
        """For how long a log is kept for this node, which may be busy with a commit when it is told."""
        return int(min(max(_PATIENCE_MS, 2000 * self._kept_for), _LONGEST_PATIENCE_MS))

    def _waited_ms(self) -> int:
        now = asyncio.get_running_loop().time()
        return ceil(1000 * (now - min(self._waiting.values(), default=now)))

    async def freed(self) -> None:
        """See `Turns`."""
        try:
            async with asyncio.timeout(_FREED_SECONDS):
                await self._freed.wait()
        except TimeoutError:
            pass

    def tell_freed(self) -> None:
        """A log that was denied is kept for this node now."""
        self._freed.set()

    def give_back(self, heads: Mapping[str, Head | None]) -> None:
        """See `Turns`."""
        loop = asyncio.get_running_loop()
        self._kept_for = loop.time() - self._taken_at
        for log, head in heads.items():
            self._held.pop(log, None)
            self._given[log] = b"" if head is None else _encode(head)
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Unless turns are taken in the same turn of the event loop, which takes it along."""
        self._is_scheduled = False
        if self._given:
            given, self._given = self._given, {}
            self.calls.tell("turns", self._key, *self._request(given, [], []))

    async def _keep_renewing(self) -> None:
        lease = int(_LEASE_SECONDS * 1000)
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if self._held:
                self.calls.tell("renew", self._key, _encode((self._process, lease, list(self._held))))
