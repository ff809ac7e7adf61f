"""Events of users. Events that must not be missed form one bounded log per user; each session reads it by
its own cursor, as it reads an inbox. All other events go to connected sessions only.

While the store cannot commit, events of the first kind wait, in their order, until it can."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from broker.delivery.fanout import Fanout
from broker.domain.errors import DuplicateMessageError, StoreError, StoreUnavailableError
from broker.domain.publication import Publication
from broker.group_commit import GroupCommit
from broker.metrics import Metrics
from broker.ports import Head, KeptEvent, MessageLog, Turns
from broker.publish.taking_turns import TakingTurns

logger = logging.getLogger(__name__)

_BATCH = 1000
_MOST_WAITING = 10_000
_HEADS = 100_000
"""Logs whose heads are remembered."""
_ERRORS_A_SECOND = 10
_ATTEMPTS = 3
_RETRY_SECONDS = 0.5


class Waiting(msgspec.Struct, frozen=True):
    """An event on its way to its log."""

    log: str
    body: bytes
    done: asyncio.Future[None]
    """Resolved when the event is stored, held, or given up."""


class _Ledger:
    """See `taking_turns.Ledger`. `heads`: log -> head, shared with `Events`."""

    def __init__(self, heads: dict[str, int]) -> None:
        self._heads = heads

    @staticmethod
    def logs(item: Waiting) -> Sequence[str]:
        return (item.log,)

    def learn_heads(self, heads: Mapping[str, Head]) -> None:
        for log, head in heads.items():
            self._heads[log] = head.offset

    def take_heads(self, items: Iterable[Waiting]) -> dict[str, Head | None]:
        taken: dict[str, Head | None] = {}
        for log in {item.log: None for item in items}:
            offset = self._heads.pop(log, None)
            taken[log] = None if offset is None else Head(offset)
        return taken


class Events:
    """`kept`: how many events of a user remain; `later(seconds, callback)` is the event loop's. `turns`:
    those of a cluster's nodes; None if no other node writes."""

    def __init__(
        self,
        log: MessageLog,
        fanout: Fanout,
        metrics: Metrics,
        kept: int,
        later: Callable[[float, Callable[[], None]], object],
        turns: Turns | None = None,
    ) -> None:
        self._log = log
        self._fanout = fanout
        self._metrics = metrics
        self._kept = kept
        self._later = later
        self._heads: dict[str, int] = {}
        # None: only what is held is to be stored.
        self._waiting: GroupCommit[Waiting | None] = GroupCommit(self._commit, _BATCH)
        # What the store could not commit. It comes before all that was submitted later.
        self._held: list[Waiting] = []
        self._is_out = False
        self._is_retry_due = False
        self._store: Callable[[list[Waiting]], Awaitable[None]] = self._store_all
        if turns is not None:
            self._store = TakingTurns(turns, _Ledger(self._heads), self._store_all, list).store
        # Errors told in this second, by user; those beyond the rate are summed up at its end.
        self._errors: Counter[str] = Counter()

    def keep_last(self, kept: int) -> None:
        """Change how many events of a user remain. Older ones go when the user's next event is stored."""
        self._kept = kept

    def tell(self, user: str, event: Mapping[str, Any]) -> None:
        """Send an event to the sessions of a user that are connected."""
        self._fanout.forward(Publication(_topic(user), msgspec.json.encode(event), 1))

    def push(self, user: str, body: bytes) -> bool:
        """Send an event to the sessions of a user that are connected to this node. Returns whether there are
        any."""
        return self._fanout.offer(Publication(_topic(user), body, 1), user)

    async def keep(self, users: Sequence[str], event: Mapping[str, Any]) -> None:
        """Send an event to the sessions of some users. On return it is stored, so that sessions that
        are away read it later; or it waits until the store can commit; or it is lost, which is logged and
        counted."""
        body = msgspec.json.encode(event)
        loop = asyncio.get_running_loop()
        waiting = []
        for user in users:
            if len(self._waiting) + len(self._held) < _MOST_WAITING:
                waiting.append(Waiting(_topic(user), body, loop.create_future()))
                self._waiting.submit(waiting[-1])
            else:
                self._metrics.dropped["events_waiting"] += 1
        for each in waiting:
            await each.done

    # --- kept events -----------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until all events are stored. What the store cannot commit now is given up."""
        if self._held:
            self._waiting.submit(None)
        await self._waiting.drain()
        if given_up := self._release():
            logger.error("%d events are lost: the node shuts down", len(given_up))
            self._metrics.dropped["events_not_stored"] += len(given_up)

    async def _commit(self, batch: Sequence[Waiting | None]) -> None:
        events = [*self._release(), *filter(None, batch)]
        try:
            while events:
                await self._store_some(events)
        except StoreUnavailableError as error:
            self._hold(events, error)
        else:
            if self._is_out:
                self._is_out = False
                logger.warning("events that waited are stored")
        finally:
            for each in batch:
                if each is not None and not each.done.done():
                    each.done.set_result(None)

    def _release(self) -> list[Waiting]:
        """What is held. Nothing is held any more."""
        released, self._held = self._held, []
        return released

    def _hold(self, events: list[Waiting], error: StoreUnavailableError) -> None:
        # Whoever has caused the events does not wait with them: what they tell of has happened.
        self._held = events
        if not self._is_out:
            self._is_out = True
            logger.error("events wait until the store can commit: %s", error)
        if not self._is_retry_due:
            self._is_retry_due = True
            self._later(_RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._is_retry_due = False
        if self._held:
            self._waiting.submit(None)

    async def _store_some(self, events: list[Waiting]) -> None:
        """Store the first events and remove them. Raises `StoreUnavailableError`: those that remain may be
        tried again."""
        chunk = events[:_BATCH]
        tried = len(chunk)
        try:
            await self._store(chunk)
        except StoreUnavailableError:
            events[:tried] = chunk  # without those that are stored
            raise
        del events[:tried]

    async def _store_all(self, batch: Sequence[Waiting]) -> None:
        """Store events, and push them. Raises `StoreUnavailableError`: they may be tried again."""
        for _ in range(_ATTEMPTS):
            try:
                events = await self._append(batch)
            except DuplicateMessageError:
                continue  # the heads were not what they are; they are asked for anew
            except StoreUnavailableError:
                raise
            except StoreError as error:
                logger.error("%d events are lost: %s", len(batch), error)
                break
            for event in events:
                self._fanout.push_event(event)
            return
        self._metrics.dropped["events_not_stored"] += len(batch)

    async def _append(self, batch: Sequence[Waiting]) -> list[KeptEvent]:
        heads = self._heads
        if len(heads) > _HEADS:
            heads.clear()
        try:
            if unknown := list({each.log: None for each in batch if each.log not in heads}):
                heads.update(await self._log.heads(unknown))
            events = []
            for each in batch:
                heads[each.log] += 1
                events.append(KeptEvent(each.log, heads[each.log], each.body))
            await self._log.append_events(events, self._kept)
        except BaseException:
            for each in batch:
                heads.pop(each.log, None)
            raise
        return events

    # --- errors ----------------------------------------------------------------------

    def error(self, user: str, error: Mapping[str, Any]) -> None:
        """Tell a user's connected sessions why something was refused. More than ten a second say
        nothing new: they are counted, and the number is told."""
        if not self._errors:
            self._later(1.0, self._sum_up)
        self._errors[user] += 1
        if self._errors[user] <= _ERRORS_A_SECOND:
            self.tell(user, {"event": "error", **error})

    def _sum_up(self) -> None:
        counted, self._errors = self._errors, Counter()
        for user, count in counted.items():
            if (more := count - _ERRORS_A_SECOND) > 0:
                self._metrics.dropped["error_events"] += more
                detail = f"{more} more refusals within a second"
                summary = {"event": "error", "code": "more", "count": more, "detail": detail}
                self.tell(user, summary)


def _topic(user: str) -> str:
    return f"users/{user}/events"
