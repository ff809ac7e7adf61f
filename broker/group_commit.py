"""Group commit: while one batch is committed the next collects, and starts when it is done.

There is no timer. When idle an item waits for one commit; under load the batches grow by
themselves, up to a cap.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class GroupCommit(Generic[T]):
    """Hands what was submitted to `commit` in batches of at most `max_batch`, one at a time.

    `commit` answers each item itself and must not raise.
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
        """Whether anything submitted is not committed yet."""
        return self._task is not None

    def submit(self, item: T) -> None:
        """Have the item committed with the next batch."""
        self._waiting.append(item)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._max_batch]
                del self._waiting[: self._max_batch]
                try:
                    await self._commit(batch)
                except Exception:  # a receiver's bug must not stop everyone's commits
                    logger.exception("after a commit of %d items", len(batch))
        finally:
            self._task = None

    async def drain(self) -> None:
        """Wait until everything submitted so far and meanwhile is committed."""
        while self._task is not None:
            await asyncio.wait({self._task})
