"""Durable changes of session state and retained messages, committed in groups."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from broker.domain.errors import StoreError
from broker.group_commit import GroupCommit
from broker.metrics import Metrics
from broker.ports import Forgotten, Retained, SessionKey, SessionState, StateChange, StateStore

logger = logging.getLogger(__name__)

_MAX_BATCH = 1000


def _ignore(_error: StoreError | None) -> None:
    """For changes nobody waits for; a failure is logged by the commit."""


class _Submission(msgspec.Struct, frozen=True):
    changes: Sequence[StateChange]
    done: Callable[[StoreError | None], None]


class States:
    """The one way changes reach the `StateStore`: in order, many to a commit."""

    def __init__(self, store: StateStore, metrics: Metrics) -> None:
        self.store = store
        self._metrics = metrics
        self._group = GroupCommit(self._commit, _MAX_BATCH)
        self._forgotten: list[StateChange] = []

    def submit(
        self, changes: Sequence[StateChange], done: Callable[[StoreError | None], None] = _ignore
    ) -> None:
        """Have changes committed; `done` is told None when they are on disk, or why not."""
        if self._forgotten:
            changes, self._forgotten = [*self._forgotten, *changes], []
        self._group.submit(_Submission(changes, done))

    def forget(self, change: Forgotten) -> None:
        """Drop a session that a clean one takes the place of. Nobody waits for it, and most such
        sessions were never kept: it goes with what is submitted next, or with `flush`."""
        self._forgotten.append(change)

    def flush(self) -> None:
        """Commit what `forget` gathered."""
        if self._forgotten:
            self.submit(())

    async def drain(self) -> None:
        """Wait until all is committed."""
        self.flush()
        await self._group.drain()

    async def save(self, changes: Sequence[StateChange]) -> None:
        """Commit changes and all that were submitted before. Raises `StoreError`."""
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: StoreError | None) -> None:
            if saved.done():
                return
            if error is None:
                saved.set_result(None)
            else:
                saved.set_exception(error)

        self.submit(changes, done)
        await saved

    async def load(self, key: SessionKey) -> SessionState | None:
        """What is kept of a session, all that was submitted before included."""
        await self.save(())
        return await self.store.load(key)

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        """As `StateStore.retained`, all that was submitted before included: whoever subscribes
        just after a message was published must not miss it."""
        if self._group.is_busy:
            await self.save(())
        return await self.store.retained(topic_filter, after, limit)

    async def _commit(self, batch: list[_Submission]) -> None:
        changes = [change for submission in batch for change in submission.changes]
        error = None
        if changes:
            try:
                self._metrics.dropped["queue_full"] += await self.store.apply(changes)
            except Exception as failure:
                logger.error("saving %d changes of session state failed: %s", len(changes), failure)
                error = failure if isinstance(failure, StoreError) else StoreError(repr(failure))
        for submission in batch:
            submission.done(error)
