"""Group commit of session state, retained messages, watermarks and marks."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from broker.domain.errors import StoreError, StoreUnavailableError
from broker.group_commit import GroupCommit
from broker.metrics import Metrics
from broker.outage import Outage
from broker.ports import (
    Claimed,
    Enqueued,
    Forgotten,
    Moved,
    Retained,
    Saved,
    SessionKey,
    SessionState,
    StateChange,
    StateStore,
)

logger = logging.getLogger(__name__)

_MAX_BATCH = 1000
_RETRY_SECONDS = 0.5
_MOST_HELD = 100_000
"""Submissions that wait while the store cannot commit."""

_STATES = "state changes"

Stale = Saved | Moved | Enqueued


def _ignore(_error: StoreError | None) -> None:
    """For changes that no caller waits for. `_commit` logs a failure."""


class _Submission(msgspec.Struct, frozen=True):
    changes: Sequence[StateChange]
    done: Callable[[StoreError | None], None]
    patient: bool


class States:
    """The only writer of the `StateStore`: it commits changes in order, many in one commit.

    While the store cannot commit, patient changes are held, and come first in each later commit."""

    def __init__(self, store: StateStore, metrics: Metrics) -> None:
        self.store = store
        self.outage = Outage()
        """Whether commits fail now, those of messages included."""
        self._held: list[_Submission] = []
        self._retry: asyncio.TimerHandle | None = None
        self._metrics = metrics
        self._group = GroupCommit(self._commit, _MAX_BATCH)
        self._forgotten: list[StateChange] = []
        self._stale: Callable[[Stale], None] = lambda _change: None

    def on_stale(self, stale: Callable[[Stale], None]) -> None:
        """Call `stale` for each change that wrote nothing because another node has claimed the session,
        before the `done` of its submission."""
        self._stale = stale

    def submit(
        self,
        changes: Sequence[StateChange],
        done: Callable[[StoreError | None], None] = _ignore,
        *,
        patient: bool = False,
    ) -> None:
        """Commit changes with the next batch. `done` is called with None when they are on disk, or with
        the error. `patient`: while the store cannot commit, they wait for it."""
        if self._forgotten:
            changes, self._forgotten = [*self._forgotten, *changes], []
        self._group.submit(_Submission(changes, done, patient))

    def forget(self, change: Forgotten) -> None:
        """Delete a session that a clean one replaces [MQTT-3.1.2-6].

        The change waits for the next `submit` or `flush`, because most such sessions were never stored: a
        commit for each clean CONNECT would be wasted."""
        self._forgotten.append(change)

    def flush(self) -> None:
        """Commit the changes of `forget`."""
        if self._forgotten:
            self.submit(())

    async def drain(self) -> None:
        """Wait until all changes are committed. What the store cannot commit now is given up."""
        self.flush()
        await self._group.drain()
        if self._retry is not None:
            self._retry.cancel()
        given_up, self._held = self._held, []
        for submission in given_up:
            submission.done(StoreUnavailableError("the node shuts down"))

    async def save(self, changes: Sequence[StateChange], *, patient: bool = False) -> None:
        """Commit changes and all submitted before them. Raises `StoreError`."""
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: StoreError | None) -> None:
            if saved.done():  # the waiting caller was cancelled
                return
            if error is None:
                saved.set_result(None)
            else:
                saved.set_exception(error)

        self.submit(changes, done, patient=patient)
        await saved

    async def load(self, key: SessionKey) -> SessionState | None:
        """The stored state of a session, after all changes submitted before. Raises `StoreError`."""
        await self.save(())
        return await self.store.load(key)

    async def claim(self, key: SessionKey, at: int) -> Claimed:
        """See `StateStore.claim`: after all changes submitted before. Raises `StoreError`."""
        await self.save(())
        return await self.store.claim(key, at)

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        """As `StateStore.retained`, after all changes submitted before: a client that subscribes just
        after a message was retained must get it."""
        if self._group.is_busy:
            await self.save(())
        return await self.store.retained(topic_filter, after, limit)

    async def _commit(self, batch: list[_Submission]) -> None:
        if self._held:
            batch, self._held = [*self._held, *batch], []
        changes = [change for submission in batch for change in submission.changes]
        error = None
        if changes:
            try:
                applied = await self.store.apply(changes)
                self._metrics.dropped["queue_full"] += applied.dropped
                for stale in applied.stale:
                    self._stale(stale)
            except StoreUnavailableError as failure:
                self._hold(batch, failure)
                return
            except Exception as failure:
                logger.error("a commit of %d state changes failed: %s", len(changes), failure)
                error = failure if isinstance(failure, StoreError) else StoreError(repr(failure))
        if self.outage.is_on and changes and error is None:
            self.outage.recovered(_STATES)
        for submission in batch:
            submission.done(error)

    def _hold(self, batch: list[_Submission], error: StoreUnavailableError) -> None:
        """Keep the patient ones of a batch that the store cannot commit now."""
        for submission in batch:
            if submission.patient and len(self._held) < _MOST_HELD:
                self._held.append(submission)
            else:
                submission.done(error)
        if not self._held:
            logger.error("a commit of state changes failed: %s", error)
            return
        self.outage.failed(_STATES, error)
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.submit(())
