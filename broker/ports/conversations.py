"""Conversations as one user sees them."""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class ConversationState(msgspec.Struct, frozen=True):
    """A conversation, for one user. Seqs are 0 where there is none."""

    conversation_id: str
    head_seq: int
    own_seq: int
    """The user's last own message."""
    read_seq: int
    delivered_seq: int
    pinned: bool
    muted: bool
    unread: bool
    """Marked as unread by the user."""
    hidden_seq: int
    changed_at: int
    """Unix ms of the last `Seen` or `Marked`; 0 for none."""
    last_id: int
    """The id of the message at `head_seq`."""


class Watermark(msgspec.Struct, frozen=True):
    """How far a user has got in a conversation."""

    user: str
    read: int
    delivered: int


class Arrival(msgspec.Struct, frozen=True):
    """A device acknowledged the entries of its user's inbox after offset `after` up to `upto`."""

    user: str
    after: int
    upto: int


class ConversationStore(Protocol):
    """What is known of conversations beside their messages. Methods raise `StoreError`."""

    async def private_conversations(self, user: str) -> list[str]:
        """The private conversations a user is in, by id."""
        ...

    async def states(self, user: str, conversation_ids: Sequence[str]) -> list[ConversationState]:
        """The state of each, in their order."""
        ...

    async def watermarks(
        self, conversation_id: str, least_read: int, after: str, limit: int
    ) -> list[Watermark]:
        """Of users who have read up to `least_read` at least, by user id, those after `after`."""
        ...

    async def arrivals(self, user: str, after: int, upto: int) -> dict[str, int]:
        """Among the entries of a user's inbox after offset `after` and up to `upto` that others sent:
        private conversation -> the highest seq."""
        ...
