"""Reads logs for sessions that are behind, and retained messages for new subscriptions.

A slow reader, a device that reconnects and a tail that missed a push need the same: the entries after an
offset, as fast as the session has room. A session that is behind has one task; the others have none.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine

import msgspec

from broker.domain.acting import acting_for
from broker.domain.errors import StoreError
from broker.domain.message import Entry
from broker.domain.publication import Publication
from broker.domain.topics import Kind, parse_topic
from broker.metrics import Metrics
from broker.ports import MessageLog, Retained, shown
from broker.session.session import Session
from broker.session.tail import Tail
from broker.wire.encoder import Outgoing

logger = logging.getLogger(__name__)

RetainedReader = Callable[[str, str, int], Awaitable[list[Retained]]]

_CHUNK = 100
_CHUNK_BYTES = 256 * 1024
_RETRY_SECONDS = 1.0


class RetainedQuery(msgspec.Struct, frozen=True):
    """The retained messages to send: those whose topic matches the filter, with at most `qos`. `only_open`
    restricts them to open topics."""

    topic_filter: str
    qos: int
    only_open: bool


class _Job:
    __slots__ = ("_task", "retained", "room")

    def __init__(self) -> None:
        self.room = asyncio.Event()
        self.retained: list[RetainedQuery] = []
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[object, object, None]) -> None:
        """Run `work` in a task."""
        self._task = asyncio.get_running_loop().create_task(work)

    def cancel(self) -> None:
        """Cancel the task."""
        if self._task is not None:
            self._task.cancel()


class Feeder:
    """Lets sessions catch up with their logs. `len` is the number of sessions that are behind.

    `retained` reads as `StateStore.retained`. `may_receive(session, topic)`, if not None, is asked about
    each retained message."""

    def __init__(
        self,
        log: MessageLog,
        retained: RetainedReader,
        metrics: Metrics,
        may_receive: Callable[[Session, str], Awaitable[bool]] | None = None,
    ) -> None:
        self._may_receive = may_receive
        self._log = log
        self._retained = retained
        self._totals = metrics.totals
        self._withheld = metrics.withhold
        self._jobs: dict[Session, _Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def lagging(self, session: Session) -> None:
        """A tail of the session is behind: start to read its log."""
        if session.connected:
            self._job(session)

    def send_retained(self, session: Session, queries: list[RetainedQuery]) -> None:
        """Send retained messages."""
        if session.connected:
            self._job(session).retained.extend(queries)

    def forget(self, session: Session) -> None:
        """The session has lost its connection: stop reading for it."""
        job = self._jobs.pop(session, None)
        if job is not None:
            session.when_room(None)
            job.cancel()

    def _job(self, session: Session) -> _Job:
        job = self._jobs.get(session)
        if job is None:
            job = self._jobs[session] = _Job()
            session.when_room(job.room.set)
            job.start(self._feed(session, job))
        return job

    async def _feed(self, session: Session, job: _Job) -> None:
        acting_for(session.key.user)
        logs = session.logs
        while job.retained or logs.behind or logs.finishing:
            try:
                owes = logs.finishing or any(tail.resend for tail in logs.behind.values())
                if job.retained and not owes:
                    await self._send_retained(session, job, job.retained[0])
                    del job.retained[0]
                else:
                    await self._catch_up(session, job)
            except StoreError as error:
                logger.error("reading for session %s: %s; trying again", session.key, error)
                await asyncio.sleep(_RETRY_SECONDS)
        # No await since the test of the loop, so no push comes in between: the next one finds the tails live.
        del self._jobs[session]
        session.when_room(None)

    async def _catch_up(self, session: Session, job: _Job) -> None:
        """A round over the tails that are behind. First what must be sent again: it may be all that
        fills the window. Then a chunk of each log there is room for."""
        logs = session.logs
        for tail in [*logs.finishing.values(), *logs.behind.values()]:
            while logs.is_read(tail) and (again := tail.to_resend()):
                while session.outbox.full:
                    await self._wait(job)
                await self._resend(session, tail, min(again))
        logs.finished()
        is_stuck = True
        for tail in list(session.behind.values()):
            if room := session.room_for(tail):
                is_stuck = False
                await self._advance(session, tail, room)
        if is_stuck and logs.behind and not logs.finishing:
            await self._wait(job)

    async def _advance(self, session: Session, tail: Tail, room: int) -> None:
        """Send one chunk of a tail's log. If there are no more entries, the tail is live."""
        entries = await self._log.read(tail.log, tail.position, min(room, _CHUNK), _CHUNK_BYTES)
        if entries and entries[0].offset > tail.position + 1:
            tell_gap(session, tail.topic, tail.position + 1, entries[0].offset - 1)
        for entry in await shown(self._log, entries, tail.horizon, self._withheld):
            if session.tails.get(tail.topic) is not tail:
                return  # the right to read was lost meanwhile
            if not session.room_for(tail):
                return
            session.send_entry(tail, entry.offset, _outgoing(tail, entry))
            self._totals["delivered"] += 1
        if not entries and tail.head <= tail.position and session.tails.get(tail.topic) is tail:
            session.logs.caught_up(tail)

    async def _resend(self, session: Session, tail: Tail, first: int) -> None:
        """Send again what an earlier connection sent: a chunk of the log from `first` on."""
        entries = await self._log.read(tail.log, first - 1, _CHUNK, _CHUNK_BYTES)
        for entry in await shown(self._log, entries, tail.horizon, self._withheld):
            if not session.logs.is_read(tail):
                return
            if entry.offset <= tail.position and entry.offset in tail.resend:
                session.send_entry(tail, entry.offset, _outgoing(tail, entry))
        if session.logs.is_read(tail) and first in tail.resend:
            logger.error("entry %d of %s is not in the log any more", first, tail.log)
            session.give_up(tail, first)

    async def _send_retained(self, session: Session, job: _Job, query: RetainedQuery) -> None:
        after = ""
        while True:
            messages = await self._retained(query.topic_filter, after, _CHUNK)
            for message in messages:
                if query.only_open and parse_topic(message.topic).kind is not Kind.OTHER:
                    continue
                if self._may_receive is not None and not await self._may_receive(session, message.topic):
                    continue
                while not session.window.room:
                    await self._wait(job)
                if query.topic_filter not in session.grants:
                    return  # unsubscribed from, or the right to read it was lost meanwhile
                session.offer(Outgoing(message, retain=True), min(query.qos, message.qos))
                self._totals["delivered"] += 1
            if len(messages) < _CHUNK:
                return
            after = messages[-1].topic

    async def _wait(self, job: _Job) -> None:
        """Wait until there may be room."""
        job.room.clear()
        await job.room.wait()


def _outgoing(tail: Tail, entry: Entry) -> Outgoing:
    return Outgoing(Publication(tail.topic, entry.payload, entry.qos, properties=entry.properties))


def tell_gap(session: Session, topic: str, first: int, last: int | None) -> None:
    """Tell a client that entries of a log are gone: a bounded log keeps its last ones only, and a restore may
    have lost some, from `first` on (`last` None: up to an unknown one). The session goes on without them."""
    events = f"users/{session.key.user}/events"
    if events in session.grants:
        gap = {"event": "gap", "topic": topic, "from": first, "to": last}
        session.offer(Outgoing(Publication(events, msgspec.json.encode(gap), 1)), session.grants[events])
