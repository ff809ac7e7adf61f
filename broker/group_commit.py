"""Group commit: while one batch is being committed, the next one collects.

There is no timer. An item that comes when nothing is being committed is committed at once. Under load the
batches grow by themselves, up to a limit.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class GroupCommit(Generic[T]):
    """Passes submitted items to `commit` in batches of at most `max_batch` items, one batch at a time.

    `commit` answers each item itself and should not raise.
    """

    def __init__(self, commit: Callable[[list[T]], Awaitable[None]], max_batch: int) -> None:
        self._commit = commit
        self._max_batch = max_batch
        self._waiting: list[T] = []
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether submitted items are not committed yet."""
        return self._task is not None

    def submit(self, item: T) -> None:
        """Commit the item with the next batch."""
        self._waiting.append(item)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def take(self) -> list[T]:
        """Take the items back that are in no batch yet."""
        taken, self._waiting = self._waiting, []
        return taken

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._max_batch]
                del self._waiting[: self._max_batch]
                try:
                    await self._commit(batch)
                except Exception:  # a bug in one batch must not stop the commits of the next ones
                    logger.exception("a commit of %d items raised", len(batch))
        finally:
            self._task = None

    async def drain(self) -> None:
        """Wait until all items are committed, including those submitted while waiting."""
        while self._task is not None:
            await asyncio.wait({self._task})
