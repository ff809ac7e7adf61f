"""Group commit: while one batch is being committed, the next one collects.

There is no timer. An item that comes when nothing is being committed is committed at once. Under load the
batches grow by themselves, up to a limit.

If more waits than fits into a batch, it may be filled in turns over the owners of the items: one item of
each, until it has its number of items or bytes. So the first item of an owner is in the next batch, however
many others have. Nor does one owner make a batch long, for which all others would wait: at most a quarter of
a full one are of the same. Items of one owner keep their order; those of different owners need not.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextvars import Context
from typing import Generic, Protocol, TypeVar

from broker.domain.lines import Lines

logger = logging.getLogger(__name__)

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_SHARE = 4
_SHORT = 64
"""A batch of so many items may be of one owner."""


class Turns(Protocol[T_contra]):
    """Says how batches are filled in turns."""

    max_bytes: int
    """A batch is full with so many bytes. Its last item may exceed them."""

    def owner(self, item: T_contra) -> Hashable:
        """Whose item it is."""
        ...

    def size(self, items: Iterable[T_contra]) -> int:
        """Bytes of items, about."""
        ...


class GroupCommit(Generic[T]):
    """Passes submitted items to `commit` in batches of at most `max_batch` items, one batch at a time.

    `commit` answers each item itself and should not raise. With `turns`, batches are filled in turns.
    """

    def __init__(
        self,
        commit: Callable[[list[T]], Awaitable[None]],
        max_batch: int,
        turns: Turns[T] | None = None,
    ) -> None:
        self._commit = commit
        self._max_batch = max_batch
        self._turns = turns
        self._most_of_one = max(max_batch // _SHARE, min(max_batch, _SHORT))
        self._waiting: list[T] = []
        # What did not fit into a batch, in a line for each owner. All of it was there before `_waiting`.
        self._lines: Lines[T] = Lines()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._lines)

    @property
    def is_busy(self) -> bool:
        """Whether submitted items are not committed yet."""
        return self._task is not None

    def submit(self, item: T) -> None:
        """Commit the item with the next batch."""
        self._waiting.append(item)
        if self._task is None:
            # In a context of its own, because a batch is not on behalf of whoever submitted its first item.
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    def next_batch(self) -> list[T]:
        """Take the next batch; empty if nothing waits."""
        waiting, turns = self._waiting, self._turns
        if turns is None:
            batch, self._waiting = waiting[: self._max_batch], waiting[self._max_batch :]
            return batch
        self._waiting = []
        if not self._lines and self._fits(waiting, turns):
            return waiting
        for item in waiting:
            self._lines.put(turns.owner(item), item)
        return self._fill(turns)

    def _fits(self, items: list[T], turns: Turns[T]) -> bool:
        """Whether items may be a batch."""
        if len(items) > self._most_of_one and (
            len(items) > self._max_batch or max(Counter(map(turns.owner, items)).values()) > self._most_of_one
        ):
            return False
        return turns.size(items) <= turns.max_bytes

    def _fill(self, turns: Turns[T]) -> list[T]:
        batch: list[T] = []
        of_owner: Counter[Hashable] = Counter()
        size = 0
        while len(batch) < self._max_batch and size < turns.max_bytes:
            item = self._lines.take()
            if item is None:
                break
            batch.append(item)
            size += turns.size((item,))
            owner = turns.owner(item)
            of_owner[owner] += 1
            if of_owner[owner] == self._most_of_one:
                break  # and so have nearly all who wait, as they have their turns
        return batch

    def take(self) -> list[T]:
        """Take the items back that are in no batch yet."""
        taken = list(iter(self._lines.take, None)) + self._waiting
        self._waiting = []
        return taken

    async def _run(self) -> None:
        try:
            while batch := self.next_batch():
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
