"""Persistent sessions, retained messages, and what users have seen."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from broker.domain.publication import Publication
from broker.domain.subscription import Subscription


class SessionKey(msgspec.Struct, frozen=True):
    """A session belongs to a user and a client id; anonymous clients have the user ""."""

    user: str
    client_id: str


class Redelivery(msgspec.Struct, frozen=True):
    """An entry of a log that was sent and not yet acknowledged. `released`: its PUBREC has
    come, only the PUBREL/PUBCOMP exchange is left; with packet id 0 that is over, too, and the
    entry is listed because the cursor is not past it."""

    packet_id: int
    log: str
    offset: int
    qos: int
    released: bool = False


class QueuedMessage(Publication, frozen=True, omit_defaults=True):
    """A message that waits in a persistent session (topics that are not logs). `retain` as it is
    to be sent.

    `packet_id` is not 0 when it was sent before and not acknowledged; `released` as above.
    """

    packet_id: int = 0
    released: bool = False


class SessionState(msgspec.Struct):
    """What is kept of a persistent session while nobody is connected to it."""

    filters: dict[str, Subscription]
    """By topic filter, as subscribed; what they grant is worked out at each connect."""
    cursors: dict[str, int]
    """Log -> an offset up to which all entries were acknowledged or stand in `inflight`."""
    inflight: list[Redelivery]
    received: list[int]
    """Packet ids of QoS 2 publishes that were stored and not yet released (4.3.3)."""
    queue: list[QueuedMessage]


class Saved(msgspec.Struct, frozen=True):
    """Replace all that is kept of a session (cursors included) at `at` Unix ms."""

    key: SessionKey
    state: SessionState
    at: int


class Moved(msgspec.Struct, frozen=True):
    """Set some cursors of a session that is kept."""

    key: SessionKey
    cursors: Mapping[str, int]


class Enqueued(msgspec.Struct, frozen=True):
    """Append a message to the queue of a session that is kept and not connected.

    If the queue holds `limit` messages already, the oldest go."""

    key: SessionKey
    message: QueuedMessage
    limit: int


class Forgotten(msgspec.Struct, frozen=True):
    """Drop a session; with `client_id` None, all sessions of the user."""

    user: str
    client_id: str | None


class Retained(Publication, frozen=True):
    """A retained message, empty to remove it (3.3.1.3).

    `live` marks a presence that is not offline: what must not outlast the node."""

    retain: bool = True
    live: bool = False


class Seen(msgspec.Struct, frozen=True):
    """Move a user's watermarks in a conversation forward, at `at` Unix ms; they never go back.

    Reading takes the mark of being unread away."""

    user: str
    conversation_id: str
    at: int
    read: int = 0
    delivered: int = 0


class Marked(msgspec.Struct, frozen=True):
    """Set what a user wants of a conversation; None leaves it as it is.

    `hidden`: the seq up to which it is hidden, 0 for none: a newer message shows it again."""

    user: str
    conversation_id: str
    at: int
    pinned: bool | None = None
    muted: bool | None = None
    unread: bool | None = None
    hidden: int | None = None


class Unseen(msgspec.Struct, frozen=True):
    """Drop what was seen and marked by who had a user's id before. What was said to them in private
    counts as seen, since it is not for the new user."""

    user: str


StateChange = Saved | Moved | Enqueued | Forgotten | Retained | Seen | Marked | Unseen


SaveChanges = Callable[[Sequence[StateChange]], Awaitable[None]]
"""Commits changes together with those of others; on return they are on disk. Raises `StoreError`."""


class StateStore(Protocol):
    """Persistent sessions and retained messages. Methods raise `StoreError`."""

    async def apply(self, changes: Sequence[StateChange]) -> int:
        """Commit changes in their order, all or nothing; returns how many queued messages
        were dropped because a queue was full.

        Raises:
            StoreError: a number is beyond 64 bits, or the store fails; nothing was written.
        """
        ...

    async def load(self, key: SessionKey) -> SessionState | None:
        """What is kept of a session, all earlier `apply` calls included."""
        ...

    async def subscriptions(
        self, user: str | None = None
    ) -> list[tuple[SessionKey, dict[str, Subscription]]]:
        """The filters of all sessions that are kept, or of one user's."""
        ...

    async def expire(self, before: int, keep: Sequence[SessionKey], now: int) -> int:
        """Drop sessions last saved before `before` (Unix ms), but those of `keep`, which count
        as saved at `now`; returns how many."""
        ...

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        """Retained messages whose topic matches the filter, ordered by topic (code points),
        those after topic `after` only."""
        ...

    async def retained_on(self, topics: Sequence[str]) -> dict[str, Retained]:
        """What is retained on these topics."""
        ...

    async def live_retained(self) -> list[str]:
        """Topics retained with `live`."""
        ...
