"""The message log in memory, made to be held up and to fail."""

import asyncio
from collections.abc import Sequence

from broker.domain.errors import StoreError
from broker.domain.message import Stamped
from broker.ports import KeptEvent
from tests.outside.memory_store import Contents, MemoryMessageLog, Opened


class MemoryLog(MemoryMessageLog):
    """A `MessageLog`. `failures` are raised by the next appends, one each; while `gate` is
    closed, appends wait."""

    def __init__(self) -> None:
        super().__init__(Opened(Contents()))
        self.batches: list[list[Stamped]] = []
        self.failures: list[Exception | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self.heads_asked: list[str] = []

    async def append(self, batch: Sequence[Stamped]) -> None:
        self.running += 1
        assert self.running == 1, "two commits at once"
        await self.gate.wait()
        self.running -= 1
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        try:
            await super().append(batch)
        except StoreError as error:
            raise AssertionError("the committer may lead to no error but a duplicate") from error
        self.batches.append(list(batch))

    async def append_events(self, batch: Sequence[KeptEvent], kept: int) -> None:
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        await super().append_events(batch, kept)

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        self.heads_asked += logs
        return await super().heads(logs)
