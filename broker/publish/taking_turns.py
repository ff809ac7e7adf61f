"""Commits when several nodes write the same logs: each message when this node has the turn of all its logs.

A message that must wait for another node holds up the later ones of the same logs, so that they keep their
order, and no others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from broker.ports import Head, Turns

_PATIENCE = 0.02
"""Seconds until turns are asked for again, if nobody says that they are free."""
_LOOK = 0.004
"""Seconds until what has come meanwhile is noticed: it may need other turns."""


T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Ledger(Protocol[T_contra]):
    """What is known of the ends of the logs that items are written to."""

    def logs(self, item: T_contra) -> Sequence[str]:
        """The logs that an item is written to."""
        ...

    def learn_heads(self, heads: Mapping[str, Head]) -> None:
        """The heads of logs, as the node that wrote them last has told."""
        ...

    def take_heads(self, items: Iterable[T_contra]) -> dict[str, Head | None]:
        """Forget the heads of these items' logs, because other nodes may write them from now on. Returns what
        they were; None for those that are unknown."""
        ...


class TakingTurns(Generic[T]):
    """`commit` stores a batch whose logs are this node's to write. `more` takes what has been submitted
    meanwhile."""

    def __init__(
        self,
        turns: Turns,
        ledger: Ledger[T],
        commit: Callable[[list[T]], Awaitable[None]],
        more: Callable[[], list[T]],
    ) -> None:
        self._turns = turns
        self._ledger = ledger
        self._commit = commit
        self._more = more

    async def store(self, batch: list[T]) -> None:
        """Commit a batch, and what is submitted while it waits for other nodes. If `commit` raises, the batch
        holds what is not answered yet."""
        while batch:
            taken = await self._turns.take([self._ledger.logs(item) for item in batch])
            self._ledger.learn_heads(taken.heads)
            granted = [item for item, mine in zip(batch, taken.granted, strict=True) if mine]
            if granted:
                await self._write(granted)
                batch[:] = [
                    item for item, is_granted in zip(batch, taken.granted, strict=True) if not is_granted
                ]
            else:
                await self._wait(batch)
            if batch:
                batch += self._more()

    async def _wait(self, batch: list[T]) -> None:
        """Until turns may be free, or more has been submitted, which joins the batch."""
        for _ in range(int(_PATIENCE / _LOOK)):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK):
                    await self._turns.freed()
                    return
            if more := self._more():
                batch += more
                return

    async def _write(self, granted: list[T]) -> None:
        try:
            await self._commit(granted)
        finally:
            self._turns.give_back(self._ledger.take_heads(granted))
