"""Commits when several nodes write the same logs: each message when this node has the turn of all its logs.

A message that must wait for another node holds up the later ones of the same logs, so that they keep their
order, and no others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from broker.domain.message import Draft
from broker.ports import Turns
from broker.publish.sequencer import Sequencer

_PATIENCE = 0.02
"""Seconds until turns are asked for again, if nobody says that they are free."""
_LOOK = 0.004
"""Seconds until what has come meanwhile is noticed: it may need other turns."""


class HasDraft(Protocol):
    """A submission to the committer."""

    @property
    def draft(self) -> Draft: ...


T = TypeVar("T", bound=HasDraft)


class TakingTurns(Generic[T]):
    """`commit` stores a batch whose logs are this node's to write. `more` takes what has been submitted
    meanwhile."""

    def __init__(
        self,
        turns: Turns,
        sequencer: Sequencer,
        commit: Callable[[list[T]], Awaitable[None]],
        more: Callable[[], list[T]],
    ) -> None:
        self._turns = turns
        self._sequencer = sequencer
        self._commit = commit
        self._more = more

    async def store(self, batch: list[T]) -> None:
        """Commit a batch, and what is submitted while it waits for other nodes. If `commit` raises, the batch
        holds what is not answered yet."""
        while batch:
            taken = await self._turns.take([_logs(item.draft) for item in batch])
            self._sequencer.learn_heads(taken.heads)
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
        drafts = [item.draft for item in granted]
        try:
            await self._commit(granted)
        finally:
            self._turns.give_back(self._sequencer.take_heads(drafts))


def _logs(draft: Draft) -> Sequence[str]:
    return (draft.conversation_id, *draft.logs)
