"""The log of messages."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from broker.domain.message import Entry, Stamped


class Clock(Protocol):
    """Wall time."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...


class DedupKey(msgspec.Struct, frozen=True):
    """What may stand in the store once, for ever."""

    sender: str
    conversation_id: str
    client_msg_id: str


class Located(msgspec.Struct, frozen=True):
    """A message and its place."""

    conversation_id: str
    seq: int
    body: bytes


class KeptEvent(msgspec.Struct, frozen=True, gc=False):
    """An entry of a user's events. `log` is their topic, `users/<id>/events`; `body` is the event's JSON
    object without `offset`."""

    log: str
    offset: int
    body: bytes


class MessageLog(Protocol):
    """Logs of messages: conversations, inboxes whose entries refer to them, and users' events, which are
    bounded: their oldest entries go.

    A log is named as `domain.conversation.log_name` says. Offsets count from 1.
    Every method raises `StoreError` when the store fails.
    """

    async def append(self, batch: Sequence[Stamped]) -> None:
        """Commit a batch, all of it or nothing; on return it survives a power cut.

        With a message that amends earlier ones (`Draft.amends`), the earlier ones' bodies are
        replaced. With the first message of a private conversation, both users get it listed.

        Raises:
            DuplicateMessageError: a `DedupKey` or a place in a log is taken; nothing was written.
        """
        ...

    async def append_events(self, batch: Sequence[KeptEvent], kept: int) -> None:
        """Commit events, all of them or none; of each log the last `kept` remain.

        Raises:
            DuplicateMessageError: a place in a log is taken; nothing was written.
        """
        ...

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        """The last offset of each log, 0 for one that is empty or unknown."""
        ...

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        """Entries after offset `after` in order: at most `limit` of them, and of about
        `max_bytes`, but at least one if there is one."""
        ...

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        """The last entries before offset `before`, in ascending order: at most `limit` of them, and
        of about `max_bytes`, but at least one if there is one."""
        ...

    async def amendments(
        self, conversation_id: str, seq: int, after: int, limit: int, max_bytes: int
    ) -> list[Entry]:
        """Entries of a conversation that have amended the message at `seq`; else as `read`."""
        ...

    async def locate(self, ids: Sequence[int]) -> dict[int, Located]:
        """Where the messages with these ids stand; those that are unknown are left out."""
        ...

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        """The bodies of those keys that are stored."""
        ...
