"""Events of users. Events that must not be missed form one bounded log per user; each session reads it by
its own cursor, as it reads an inbox. All other events go to connected sessions only."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from broker.delivery.fanout import Fanout
from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.publication import Publication
from broker.group_commit import GroupCommit
from broker.metrics import Metrics
from broker.ports import KeptEvent, MessageLog

logger = logging.getLogger(__name__)

_BATCH = 1000
_MOST_WAITING = 10_000
_HEADS = 100_000
"""Logs whose heads are remembered."""
_ERRORS_A_SECOND = 10
_ATTEMPTS = 3


class Waiting(msgspec.Struct, frozen=True):
    """An event on its way to its log."""

    log: str
    body: bytes
    done: asyncio.Future[None]
    """Resolved when the event is stored, or given up."""


class Events:
    """`kept`: how many events of a user remain; `later(seconds, callback)` is the event loop's."""

    def __init__(
        self,
        log: MessageLog,
        fanout: Fanout,
        metrics: Metrics,
        kept: int,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._log = log
        self._fanout = fanout
        self._metrics = metrics
        self._kept = kept
        self._later = later
        self._heads: dict[str, int] = {}
        self._waiting = GroupCommit(self._commit, _BATCH)
        self.drain = self._waiting.drain
        # Errors told in this second, by user; those beyond the rate are summed up at its end.
        self._errors: Counter[str] = Counter()

    def keep_last(self, kept: int) -> None:
        """Change how many events of a user remain. Older ones go when the user's next event is stored."""
        self._kept = kept

    def tell(self, user: str, event: Mapping[str, Any]) -> None:
        """Send an event to the sessions of a user that are connected."""
        self._fanout.forward(Publication(_topic(user), msgspec.json.encode(event), 1))

    async def keep(self, users: Sequence[str], event: Mapping[str, Any]) -> None:
        """Send an event to the sessions of some users. On return it is stored, so that sessions that
        are away read it later; or it is lost, which is logged and counted."""
        body = msgspec.json.encode(event)
        loop = asyncio.get_running_loop()
        waiting = []
        for user in users:
            if len(self._waiting) < _MOST_WAITING:
                waiting.append(Waiting(_topic(user), body, loop.create_future()))
                self._waiting.submit(waiting[-1])
            else:
                self._metrics.dropped["events_waiting"] += 1
        for each in waiting:
            await each.done

    # --- kept events -----------------------------------------------------------------

    async def _commit(self, batch: Sequence[Waiting]) -> None:
        try:
            await self._store(batch)
        finally:
            for each in batch:
                if not each.done.done():
                    each.done.set_result(None)

    async def _store(self, batch: Sequence[Waiting]) -> None:
        for _ in range(_ATTEMPTS):
            try:
                events = await self._append(batch)
            except DuplicateMessageError:
                continue  # the heads were not what they are; they are asked for anew
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
