"""Well-behaved users, who do a few things at a steady pace, and how long each takes.

The pace does not depend on the answers: a node that stands still for a second makes all of that second's
samples late, not just one (coordinated omission).
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import NamedTuple

from benchmarks import frames
from benchmarks.loadgen import BenchmarkError, Client, open_client

from .town import CALLER, READER, WRITER, Target, Town

PUBLISH_EVERY = 0.01
CALL_EVERY = 0.02
LOGIN_EVERY = 0.4
LATEST_ANSWER = 20.0
"""An answer that takes longer counts as so late."""

_REQUEST_ID = re.compile(rb'"request_id":"([0-9]+)"')
_LONGEST = 64
"""Bytes that are kept of a reply that has not come whole."""


class Sample(NamedTuple):
    """Something that was begun at a time of the monotonic clock, and took so many seconds."""

    begun: float
    seconds: float


class Series:
    """The samples of one kind, and those still waited for, by number."""

    def __init__(self) -> None:
        self._waiting: dict[int, float] = {}
        self._samples: list[Sample] = []

    def begin(self, number: int) -> None:
        """One more is under way."""
        self._waiting[number] = time.monotonic()

    def answered(self, number: int) -> None:
        """An answer has come."""
        begun = self._waiting.pop(number, None)
        if begun is not None:
            self._samples.append(Sample(begun, time.monotonic() - begun))

    def add(self, sample: Sample) -> None:
        """One that was timed elsewhere."""
        self._samples.append(sample)

    def between(self, start: float, end: float) -> list[float]:
        """How long those took that were begun in an interval, in ascending order. What has no answer yet has
        taken the time until now."""
        now = time.monotonic()
        late = [Sample(begun, now - begun) for begun in self._waiting.values()]
        return sorted(each.seconds for each in (*self._samples, *late) if start <= each.begun < end)


class _Writer(Client):
    """Publishes numbers 0, 1, 2, …, whose PUBACKs come in this order [MQTT-4.6.0-2]."""

    def __init__(self, series: Series) -> None:
        super().__init__()
        self._series = series
        self._answers = count()
        self.on_progress = self._acknowledged

    def _acknowledged(self, _deliveries: int, acknowledgements: int) -> None:
        for _ in range(acknowledgements):
            self._series.answered(next(self._answers))


class _Caller(Client):
    """Gets replies, which come in any order. A call that is refused gets none."""

    def __init__(self, series: Series) -> None:
        super().__init__()
        self._series = series
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        data = self._rest + data
        end = 0
        for found in _REQUEST_ID.finditer(data):
            end = found.end()
            self._series.answered(int(found[1]))
        self._rest = data[end:][-_LONGEST:]


class Probes:
    """The users at work. Their samples are in `publishes`, `calls` and `logins`."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.publishes, self.calls, self.logins = Series(), Series(), Series()
        self._tasks: list[asyncio.Task[None]] = []
        self.lost: str | None = None
        """Whose connection the node has closed, or None."""

    def __iter__(self) -> Iterator[Series]:
        return iter((self.publishes, self.calls, self.logins))

    async def start(self) -> None:
        """Connect, and begin."""
        reader = await self._join(READER)
        await reader.subscribe(f"users/{READER}/inbox", 1)
        writer = await self._join(WRITER, _Writer(self.publishes))
        caller = await self._join(CALLER, _Caller(self.calls))
        await caller.subscribe(f"users/{CALLER}/replies", 0)
        inbox, method = f"users/{READER}/inbox", f"users/{CALLER}/rpc/users.get"

        def publish(number: int) -> bytes:
            return frames.publish(inbox, b"good morning", 1, number % 60_000 + 1)

        def call(number: int) -> bytes:
            request = {"user_ids": [WRITER], "request_id": str(number)}
            return frames.publish(method, json.dumps(request).encode(), 0, 0)

        self._tasks = [
            asyncio.create_task(_repeat(PUBLISH_EVERY, writer, publish, self.publishes)),
            asyncio.create_task(_repeat(CALL_EVERY, caller, call, self.calls)),
            asyncio.create_task(self._log_in_again_and_again()),
        ]

    async def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _join(self, user: str, client: Client | None = None) -> Client:
        target = self._town.target
        client = await open_client(
            target.host, target.port, user, user, self._town.tokens[user], client or Client()
        )

        def lost() -> None:
            self.lost = user

        client.on_lost = lost
        return client

    async def _log_in_again_and_again(self) -> None:
        async with asyncio.TaskGroup() as logins:
            async for _ in _times(LOGIN_EVERY):
                newcomer = next(self._town.newcomers, None)
                if newcomer is None:
                    return
                logins.create_task(self._log_in(*newcomer))

    async def _log_in(self, user: str, password: str) -> None:
        """A first login: the node has not seen this password yet."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(LATEST_ANSWER):
                await _connect_and_leave(self._town.target, user, password)
        except (BenchmarkError, TimeoutError, OSError):
            self.logins.add(Sample(begun, LATEST_ANSWER))  # refused is as bad as never
        else:
            self.logins.add(Sample(begun, time.monotonic() - begun))


async def _connect_and_leave(target: Target, user: str, password: str) -> None:
    client = await open_client(target.host, target.port, user, user, password)
    client.close()


async def _repeat(seconds: float, client: Client, frame: Callable[[int], bytes], series: Series) -> None:
    async for number in _times(seconds):
        series.begin(number)
        client.write(frame(number))


async def _times(seconds: float) -> AsyncIterator[int]:
    """Counts: now, and then each time that something is due. When this process itself was late, what was
    missed is skipped: it is not the node's delay."""
    due = time.monotonic()
    for number in count():
        yield number
        due = max(due + seconds, time.monotonic())
        await asyncio.sleep(max(due - time.monotonic(), 0))


@asynccontextmanager
async def probing(town: Town) -> AsyncIterator[Probes]:
    """Probes at work while the context lasts."""
    probes = Probes(town)
    await probes.start()
    try:
        yield probes
    finally:
        await probes.stop()
