"""A message log in memory that can be held up and made to fail."""

import asyncio
from collections.abc import Sequence

from broker.domain.errors import DuplicateMessageError
from broker.domain.message import Entry, Stamped
from broker.ports import DedupKey, Located


class MemoryLog:
    """A `MessageLog`. `failures` are raised by the next appends, one each; while `gate` is
    closed, appends wait."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Stamped]] = {}
        self.keys: dict[DedupKey, bytes] = {}
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
        keys = [key for message in batch if (key := _key(message)) is not None]
        places = [place for message in batch for place in _places(message)]
        taken = any(offset <= len(self.logs.get(log, [])) for log, offset in places)
        if taken or len(set(keys)) < len(keys) or any(key in self.keys for key in keys):
            raise DuplicateMessageError("taken")
        self.batches.append(list(batch))
        for message in batch:
            for log, offset in _places(message):
                entries = self.logs.setdefault(log, [])
                entries.append(message)
                assert len(entries) == offset, "a gap"
            if (key := _key(message)) is not None:
                self.keys[key] = message.body

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        self.heads_asked += logs
        return {log: len(self.logs.get(log, [])) for log in logs}

    async def locate(self, ids: Sequence[int]) -> dict[int, Located]:
        return {
            message.id: Located(message.draft.conversation_id, message.seq, message.body)
            for batch in self.batches
            for message in batch
            if message.id in ids
        }

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        return {key: self.keys[key] for key in keys if key in self.keys}

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        raise NotImplementedError

    async def amendments(
        self, conversation_id: str, seq: int, after: int, limit: int, max_bytes: int
    ) -> list[Entry]:
        raise NotImplementedError

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        raise NotImplementedError


def _places(message: Stamped) -> list[tuple[str, int]]:
    conversation = (message.draft.conversation_id, message.seq)
    return [conversation, *zip(message.draft.logs, message.offsets, strict=True)]


def _key(message: Stamped) -> DedupKey | None:
    said, of = message.draft.content.client_msg_id, message.draft
    return None if said is None else DedupKey(of.sender, of.conversation_id, said)
