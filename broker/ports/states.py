"""Persistent sessions, retained messages, and users' watermarks and marks in conversations."""

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from broker.domain.publication import Publication
from broker.domain.subscription import Subscription


class SessionKey(msgspec.Struct, frozen=True):
    """The key of a session: user and client id. Anonymous clients have the user "".

    The user is part of the key, so that nobody can take over another user's session by its client id."""

    user: str
    client_id: str


class Redelivery(msgspec.Struct, frozen=True):
    """An entry of a log that was sent and is not yet acknowledged.

    `released`: its PUBREC has arrived and only PUBREL and PUBCOMP remain (MQTT 3.1.1, 4.3.3). With packet
    id 0 it is acknowledged; it is listed because the cursor has not passed it yet."""

    packet_id: int
    log: str
    offset: int
    qos: int
    released: bool = False


class QueuedMessage(Publication, frozen=True, omit_defaults=True):
    """A message of a topic that is not a log, queued in a persistent session.

    `retain` is the flag to send. `packet_id` is not 0 if the message was sent before and not
    acknowledged. `released` is as in `Redelivery`. `id`: in a cluster nodes may queue a message twice, with
    the same id; 0 for none.
    """

    packet_id: int = 0
    released: bool = False
    id: int = 0


class PacketIds(msgspec.Struct, frozen=True, array_like=True):
    """How far a session has handed out packet ids. The n-th has the packet id (n - 1) % 65535 + 1.

    When a connection ends, `reserved` is saved as equal to `last`. If it is more, the node has died since:
    any of those between may have been handed out, and the client may hold them (MQTT 3.1.1, 4.3.3)."""

    last: int = 0
    """The last that was handed out when this was saved."""
    reserved: int = 0
    """The last that may be handed out until this is saved again."""
    doubtful: tuple[tuple[int, int], ...] = ()
    """Ranges, as first and last packet id, that the client may hold since a crash; the earliest first."""


class Lost(msgspec.Struct, frozen=True, array_like=True):
    """Entries of a log that a restore of the store from a backup has lost: their first offset and their last
    (None: unknown). A client may have got them. Other entries may have these offsets since."""

    first: int
    last: int | None


class SessionState(msgspec.Struct):
    """The stored state of a persistent session (MQTT 3.1.1, 3.1.2.4)."""

    filters: dict[str, Subscription]
    """Topic filter -> subscription, as the client requested it. Grants are not stored: rights may change
    while the client is away, so they are determined at each connect."""
    cursors: dict[str, int]
    """Log -> cursor: all entries up to this offset were acknowledged or are in `inflight`."""
    inflight: list[Redelivery]
    received: list[int]
    """Packet ids of QoS 2 publishes that were stored and not yet released (MQTT 3.1.1, 4.3.3)."""
    queue: list[QueuedMessage]
    packet_ids: PacketIds = PacketIds()
    lost: dict[str, Lost] | None = None
    """Log -> what is lost, if the store was restored since the session was last connected; None otherwise.
    Then the node knows nothing of the packets that the client may hold."""


class StoredSession(msgspec.Struct, frozen=True):
    """A stored session as listings show it."""

    key: SessionKey
    saved_at: int
    """Unix ms. For a session that is away: when its last connection ended, as far as the node saw it."""
    filters: dict[str, Subscription]
    cursors: dict[str, int]
    """Log -> cursor, see `SessionState`."""
    waiting: int
    """How many messages are queued, or were sent and not acknowledged."""


class Subscribed(msgspec.Struct, frozen=True):
    """A stored session and what it is subscribed to."""

    key: SessionKey
    filters: dict[str, Subscription]
    epoch: int


class Claimed(msgspec.Struct, frozen=True):
    """A session that a node has taken over."""

    epoch: int
    """Larger than that of every earlier claim."""
    state: SessionState | None
    """None if there was no such session. Now there is one, without subscriptions."""


class Saved(msgspec.Struct, frozen=True):
    """Replace the whole stored state of a session, cursors included. `at` is Unix ms.

    In a cluster each change of a session names its `epoch`, see `StateStore.claim`. It is stale, and writes
    nothing, if the session has been claimed since, or deleted. None: whatever the epoch is."""

    key: SessionKey
    state: SessionState
    at: int
    epoch: int | None = None


class Moved(msgspec.Struct, frozen=True):
    """Set some cursors of a stored session, and its packet ids if they are given. `epoch` is as in
    `Saved`."""

    key: SessionKey
    cursors: Mapping[str, int]
    packet_ids: PacketIds | None = None
    epoch: int | None = None


class Enqueued(msgspec.Struct, frozen=True):
    """Append a message to the queue of a stored session that is not connected.

    If the queue then holds more than `limit` messages, the oldest are dropped. So they are if this message is
    larger than `max_bytes / limit` and the queue holds more than about `max_bytes` bytes, but never this one:
    a queue holds at most twice that. `epoch` is as in `Saved`."""

    key: SessionKey
    message: QueuedMessage
    limit: int
    max_bytes: int = sys.maxsize
    epoch: int | None = None


class Forgotten(msgspec.Struct, frozen=True):
    """Delete a session; with `client_id` None, all sessions of the user."""

    user: str
    client_id: str | None


class Retained(Publication, frozen=True):
    """A retained message. An empty payload removes it (MQTT 3.1.1, 3.3.1.3).

    `live` marks a presence other than `offline`: it is not true any more when the node has died."""

    retain: bool = True
    live: bool = False
    owner: str = ""
    """The user who published it, or the address of an anonymous client; "" for the server."""


class Held(msgspec.Struct, frozen=True):
    """Who has published a retained message (`Retained.owner`), and its bytes, topic included."""

    owner: str
    size: int


class Seen(msgspec.Struct, frozen=True):
    """Move a user's watermarks in a conversation forward; they never go back. `at` is Unix ms.

    A read watermark also clears the mark `unread`."""

    user: str
    conversation_id: str
    at: int
    read: int = 0
    delivered: int = 0


class Marked(msgspec.Struct, frozen=True):
    """Set a user's marks on a conversation; None leaves a mark as it is. `at` is Unix ms.

    `hidden`: the conversation is hidden until a message after this seq; 0 for not hidden."""

    user: str
    conversation_id: str
    at: int
    pinned: bool | None = None
    muted: bool | None = None
    unread: bool | None = None
    hidden: int | None = None


class Unseen(msgspec.Struct, frozen=True):
    """Delete the watermarks, marks, mentions and idempotency keys of an earlier account with the same id.
    Where it has sent something, and in its private conversations, the head becomes the floor: the messages up
    to it are not the new account's. In private conversations the watermarks get there, too, because these
    messages are not for the new account."""

    user: str


StateChange = Saved | Moved | Enqueued | Forgotten | Retained | Seen | Marked | Unseen


class Applied(msgspec.Struct, frozen=True):
    """The result of `StateStore.apply`."""

    dropped: int = 0
    """How many queued messages were dropped because a queue was full."""
    stale: Sequence[Saved | Moved | Enqueued] = ()
    """The changes that wrote nothing because the session has been claimed since, or deleted."""


SaveChanges = Callable[[Sequence[StateChange]], Awaitable[None]]
"""Commits changes, together with those of other callers. On return they are on disk. Raises `StoreError`."""


class StateStore(Protocol):
    """Persistent sessions, retained messages, watermarks and marks. Methods raise `StoreError`."""

    async def apply(self, changes: Sequence[StateChange]) -> Applied:
        """Commit changes in their order, all or nothing, but for stale ones.

        Raises:
            StoreError: a number exceeds 64 bits, or the store fails. Nothing was written.
        """
        ...

    async def load(self, key: SessionKey) -> SessionState | None:
        """The stored state of a session, after all earlier `apply` calls; None if there is none."""
        ...

    async def claim(self, key: SessionKey, at: int) -> Claimed:
        """Take a session over: raise its epoch, so that changes of whoever had it before are stale. It counts
        as saved at `at` (Unix ms). Creates the session if there is none."""
        ...

    async def subscriptions(self, user: str | None = None) -> list[Subscribed]:
        """What all stored sessions, or those of one user, are subscribed to."""
        ...

    async def sessions(self, user: str | None, after: SessionKey, limit: int) -> list[StoredSession]:
        """The first `limit` stored sessions after a key, ordered by user and client id (code points); only
        those of `user` if it is not None. Begin with the key ("", "")."""
        ...

    async def client_ids(self, user: str, limit: int) -> list[str]:
        """The client ids of a user's stored sessions, `limit` of them if there are more."""
        ...

    async def expiring(self, before: int, limit: int) -> list[SessionKey]:
        """`limit` sessions last saved before `before` (Unix ms)."""
        ...

    async def expire(self, before: int, keep: Sequence[SessionKey], now: int) -> int:
        """Delete sessions last saved before `before` (Unix ms). Those in `keep` stay and count as saved at
        `now` (Unix ms). Returns the number of deleted sessions."""
        ...

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        """The first `limit` retained messages after topic `after` whose topic matches the filter, ordered
        by topic (code points)."""
        ...

    async def retained_on(self, topics: Sequence[str]) -> dict[str, Retained]:
        """Topic -> retained message. Topics without one are left out."""
        ...

    async def held(self) -> dict[str, Held]:
        """Topic -> whose its retained message is, and how large. Without the platform's own topics,
        which are those under `users/`."""
        ...

    async def live_retained(self) -> list[str]:
        """The topics of retained messages marked `live`."""
        ...
