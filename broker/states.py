"""Group commit of session state, retained messages, watermarks and marks."""

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
    """For changes that no caller waits for. `_commit` logs a failure."""


class _Submission(msgspec.Struct, frozen=True):
    changes: Sequence[StateChange]
    done: Callable[[StoreError | None], None]


class States:
    """The only writer of the `StateStore`: it commits changes in order, many in one commit."""

    def __init__(self, store: StateStore, metrics: Metrics) -> None:
        self.store = store
        self._metrics = metrics
        self._group = GroupCommit(self._commit, _MAX_BATCH)
        self._forgotten: list[StateChange] = []

    def submit(
        self, changes: Sequence[StateChange], done: Callable[[StoreError | None], None] = _ignore
    ) -> None:
        """Commit changes with the next batch. `done` is called with None when they are on disk, or with
        the error."""
        if self._forgotten:
            changes, self._forgotten = [*self._forgotten, *changes], []
        self._group.submit(_Submission(changes, done))

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
        """Wait until all changes are committed."""
        self.flush()
        await self._group.drain()

    async def save(self, changes: Sequence[StateChange]) -> None:
        """Commit changes and all submitted before them. Raises `StoreError`."""
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: StoreError | None) -> None:
            if saved.done():  # the waiting caller was cancelled
                return
            if error is None:
                saved.set_result(None)
            else:
                saved.set_exception(error)

        self.submit(changes, done)
        await saved

    async def load(self, key: SessionKey) -> SessionState | None:
        """The stored state of a session, after all changes submitted before. Raises `StoreError`."""
        await self.save(())
        return await self.store.load(key)

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        """As `StateStore.retained`, after all changes submitted before: a client that subscribes just
        after a message was retained must get it."""
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
                logger.error("a commit of %d state changes failed: %s", len(changes), failure)
                error = failure if isinstance(failure, StoreError) else StoreError(repr(failure))
        for submission in batch:
            submission.done(error)
