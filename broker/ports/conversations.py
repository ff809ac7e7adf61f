"""Conversations as one user sees them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class ConversationState(msgspec.Struct, frozen=True):
    """A conversation for one user. A seq is 0 if there is none."""

    conversation_id: str
    head_seq: int
    own_seq: int
    """The seq of the user's own last message."""
    read_seq: int
    """The user's read watermark."""
    delivered_seq: int
    """The user's delivered watermark."""
    pinned: bool
    muted: bool
    unread: bool
    """Marked as unread by the user."""
    hidden_seq: int
    """Hidden until a newer message comes: see `Marked`."""
    changed_at: int
    """Unix ms of the last `Seen` or `Marked`; 0 for none."""
    head_id: int
    """The id of the entry at `head_seq`."""
    last_seq: int
    """The seq of the last message: edits, recalls and system entries are none."""
    last_id: int
    """The id of the message at `last_seq`."""
    messages: int
    """How many messages there are."""
    seen: int
    """How many of them count as seen: those up to the user's read watermark, own last message, or floor."""
    floor_seq: int = 0
    """Messages up to this seq were sent by or to an earlier account with the user's id. 0 also if that is not
    known, because an earlier version has stored it."""


class Watermark(msgspec.Struct, frozen=True):
    """A user's read and delivered watermarks in a conversation, as seqs."""

    user: str
    read: int
    delivered: int


class Arrival(msgspec.Struct, frozen=True):
    """A device acknowledged entries of its user's inbox: those with `after` < offset <= `upto`."""

    user: str
    after: int
    upto: int


class ConversationStore(Protocol):
    """Users' views of their conversations. Methods raise `StoreError`."""

    async def private_conversations(self, user: str) -> list[str]:
        """The ids of a user's private conversations, in ascending order."""
        ...

    async def states(
        self, user: str, conversation_ids: Sequence[str], floors: Mapping[str, int] | None = None
    ) -> list[ConversationState]:
        """The state of each conversation, in the order of `conversation_ids`. `floors`: conversation -> the
        seq up to which its messages count as seen."""
        ...

    async def floors(self, user: str) -> dict[str, int | None]:
        """Private conversation -> the seq up to which its messages were for an earlier account with the
        user's id; None if that is not known, because an earlier version has stored it. Conversations without
        such messages are left out."""
        ...

    async def last_change(self) -> int:
        """The latest `changed_at` of all users and conversations; 0 if there is none."""
        ...

    async def watermarks(
        self, conversation_id: str, least_read: int, after: str, limit: int
    ) -> list[Watermark]:
        """The first `limit` watermarks of users after `after`, by user id, whose read watermark is at
        least `least_read`."""
        ...

    async def watermarks_of(self, users: Mapping[str, str]) -> dict[str, Watermark]:
        """Conversation -> the watermarks that one user has in it, those of an earlier account with the same
        id left out. `users`: conversation -> that user. Conversations without any are left out."""
        ...

    async def mentions(self, user: str, after: Mapping[str, int]) -> dict[str, int]:
        """Conversation -> the seq of the last message after a seq that mentions a user, or everybody.
        `after`: conversation -> that seq. Conversations without such a message are left out. A recalled
        message mentions nobody."""
        ...

    async def arrivals(self, user: str, after: int, upto: int) -> dict[str, int]:
        """Private conversation -> the highest seq, among the inbox entries with `after` < offset <= `upto`
        that were sent by others."""
        ...
