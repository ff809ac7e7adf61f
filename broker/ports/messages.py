"""The log of messages."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from broker.domain.message import Count, Entry, Stamped


class Clock(Protocol):
    """Time for people, and time for decisions: the wall clock may be set back or forward at any moment."""

    def now_ms(self) -> int:
        """Wall time in Unix ms: for what people read, and for ends that are given as wall time."""
        ...

    def growing_ms(self) -> int:
        """As `now_ms`, but it never goes back, not over a restart either: for message ids, and for what
        changed after what."""
        ...


class DedupKey(msgspec.Struct, frozen=True):
    """The idempotency key of a message: unique in the store for all time."""

    sender: str
    conversation_id: str
    client_msg_id: str


class Located(msgspec.Struct, frozen=True):
    """A message, its conversation and its seq."""

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

    `domain.conversation.log_name` gives the name of a log. Offsets count from 1 without gaps; the offset
    of a conversation's entry is its seq. Every method raises `StoreError` when the store fails.

    A stored body that is not any more what was stored is never returned: `domain.damage.replacement` makes
    the body that stands in its place.
    """

    async def append(self, batch: Sequence[Stamped]) -> None:
        """Commit a batch, all of it or nothing. On return it survives a power cut.

        A message that amends earlier ones (`Draft.amends`) replaces their bodies. The first message of a
        private conversation lists the conversation for both users.

        Raises:
            StoreUnavailableError: the store cannot commit now; the same batch may be tried again.
            DuplicateMessageError: a `DedupKey` or the offset of an entry is taken. Nothing was written.
        """
        ...

    async def append_events(self, batch: Sequence[KeptEvent], kept: int) -> None:
        """Commit events, all of them or none; of each log the last `kept` remain.

        Raises:
            DuplicateMessageError: a place in a log is taken; nothing was written.
        """
        ...

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        """Log -> head: its last offset, 0 for an empty or unknown log."""
        ...

    async def counts(self, conversations: Sequence[str]) -> dict[str, Count]:
        """Conversation -> the count of its messages; `Count()` for an empty or unknown one."""
        ...

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        """Entries after offset `after`, in ascending order: at most `limit`, with bodies of about
        `max_bytes` in all, but at least one if there is one."""
        ...

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        """The last entries before offset `before`, in ascending order: at most `limit`, with bodies of
        about `max_bytes` in all, but at least one if there is one."""
        ...

    async def amendments(
        self, conversation_id: str, seq: int, after: int, limit: int, max_bytes: int
    ) -> list[Entry]:
        """Entries of a conversation after offset `after` that have amended the message at `seq`.
        Otherwise as `read`."""
        ...

    async def locate(self, ids: Sequence[int]) -> dict[int, Located]:
        """Message id -> the message and its seq. Unknown ids are left out."""
        ...

    async def last_id(self) -> int:
        """The highest message id; 0 if there is no message."""
        ...

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        """Key -> body of its message. Keys that are not stored are left out."""
        ...
