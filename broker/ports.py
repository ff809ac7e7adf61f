"""The interfaces between the broker and what it is plugged into.

Stores are asked to do one durable thing at a time and answer when it is on disk. Every
implementation of a port runs the same suite (tests/ports).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from broker.domain.errors import Refusal
from broker.domain.message import Entry, Stamped
from broker.domain.topics import Topic
from broker.wire.packets import Publish


class Clock(Protocol):
    """Wall time."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...


# --- the message log ---------------------------------------------------------------------


class DedupKey(msgspec.Struct, frozen=True):
    """What may stand in the store once, for ever."""

    sender: str
    conversation_id: str
    client_msg_id: str


class MessageLog(Protocol):
    """Logs of messages: conversations, and inboxes whose entries refer to them.

    A log is named as `domain.conversation.log_name` says. Offsets count from 1.
    Every method raises `StoreError` when the store fails.
    """

    async def append(self, batch: Sequence[Stamped]) -> None:
        """Commit a batch, all of it or nothing; on return it survives a power cut.

        Raises:
            DuplicateMessageError: a `DedupKey` or a place in a log is taken; nothing was written.
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

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        """The bodies of those keys that are stored."""
        ...


# --- session state -----------------------------------------------------------------------


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


class QueuedMessage(msgspec.Struct, frozen=True):
    """A message that waits in a persistent session (topics that are not logs).

    `packet_id` is not 0 when it was sent before and not acknowledged; `released` as above.
    """

    topic: str
    payload: bytes
    qos: int
    retain: bool = False
    packet_id: int = 0
    released: bool = False


class SessionState(msgspec.Struct):
    """What is kept of a persistent session while nobody is connected to it."""

    filters: dict[str, int]
    """Topic filter -> QoS, as subscribed; what they grant is worked out at each connect."""
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


class Retained(msgspec.Struct, frozen=True):
    """A retained message, empty to remove it (3.3.1.3).

    `live` marks a presence that is not offline: what must not outlast the node."""

    topic: str
    payload: bytes
    qos: int
    live: bool = False


StateChange = Saved | Moved | Enqueued | Forgotten | Retained


class StateStore(Protocol):
    """Persistent sessions and retained messages. Methods raise `StoreError`."""

    async def apply(self, changes: Sequence[StateChange]) -> int:
        """Commit changes in their order, all or nothing; returns how many queued messages
        were dropped because a queue was full."""
        ...

    async def load(self, key: SessionKey) -> SessionState | None:
        """What is kept of a session, all earlier `apply` calls included."""
        ...

    async def subscriptions(self, user: str | None = None) -> list[tuple[SessionKey, dict[str, int]]]:
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

    async def live_retained(self) -> list[str]:
        """Topics retained with `live`."""
        ...


# --- who is who --------------------------------------------------------------------------


class Account(msgspec.Struct, frozen=True):
    """A user as the directory knows them."""

    user_id: str
    role: str = "user"
    disabled: bool = False
    password_hash: str | None = None
    created_at: int = 0
    """Unix ms."""
    inbox_floor: int = 0
    """Entries of the inbox up to this offset were another's, who had the id before."""


class Membership(msgspec.Struct, frozen=True):
    """A user's place in a group. Entries up to `joined_seq` were there before them."""

    group_id: str
    user_id: str
    role: str
    joined_seq: int
    muted_until: int = 0
    """Unix ms; 0 is not muted."""


class Group(msgspec.Struct, frozen=True):
    """A group."""

    group_id: str
    name: str
    owner: str
    created_at: int
    members: int


class AccountChanged(msgspec.Struct, frozen=True):
    """An account was added, disabled, enabled, removed or given another role. `account` is as it is
    now, None if removed."""

    user_id: str
    account: Account | None


class MembershipChanged(msgspec.Struct, frozen=True):
    """A user joined or left a group, or their rights in it changed. `member`: is one now."""

    group_id: str
    user_id: str
    member: bool


DirectoryChange = AccountChanged | MembershipChanged


class DirectoryError(Exception):
    """The directory refuses an operation: `code` is the contract's, e.g. `not_found`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Directory(Protocol):
    """Accounts and groups. What fails raises `DirectoryError`; the callers fail closed."""

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        """Have every committed change told, on the event loop's thread."""
        ...

    async def account(self, user_id: str) -> Account | None: ...

    async def accounts(self, after: str, limit: int) -> list[Account]:
        """Accounts by id, those after `after` only."""
        ...

    async def add_account(
        self, user_id: str, password: str | None, role: str, inbox_floor: int = 0
    ) -> Account: ...

    async def set_password(self, user_id: str, password: str) -> None: ...

    async def set_disabled(self, user_id: str, disabled: bool) -> None: ...

    async def remove_account(self, user_id: str) -> None:
        """Remove a user and their memberships. Refused (`is_owner`) while they own a group."""
        ...

    async def membership(self, group_id: str, user_id: str) -> Membership | None: ...

    async def memberships(self, user_id: str) -> list[Membership]: ...

    async def group(self, group_id: str) -> Group | None: ...

    async def groups(self, after: str, limit: int) -> list[Group]: ...

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]: ...

    async def create_group(
        self, group_id: str, name: str, owner: str, members: Sequence[str], joined_seq: int
    ) -> Group: ...

    async def add_members(self, group_id: str, users: Sequence[str], joined_seq: int) -> int:
        """Returns how many were not members before."""
        ...

    async def remove_members(self, group_id: str, users: Sequence[str]) -> int:
        """Returns how many were members before."""
        ...

    async def dismiss_group(self, group_id: str) -> None: ...


# --- authentication and authorization ----------------------------------------------------


class Credentials(msgspec.Struct, frozen=True):
    """What a CONNECT brings. The password is bytes as sent."""

    client_id: str
    username: str | None
    password: bytes | None
    remote_address: str
    remote_port: int


class Identity(msgspec.Struct, frozen=True):
    """Who a connection is, once authenticated. `user` is "" for anonymous ones.

    `expires_at`: Unix seconds at which the credential ends, or None."""

    user: str
    role: str = "user"
    expires_at: float | None = None


class Principal:
    """An authenticated client: who it is, and the plugins' own view of it."""

    __slots__ = ("identity", "plugin_session")

    def __init__(self, identity: Identity, plugin_session: object = None) -> None:
        self.identity = identity
        self.plugin_session = plugin_session


class Grant(msgspec.Struct, frozen=True):
    """What a topic filter comes to for one user, now."""

    topics: Mapping[str, int]
    """Topics of the contract's table it matches and the user may read -> the offset of the log
    at which the right begins (entries up to it stay unread; 0 for none)."""
    open: bool = False
    """It may match topics outside the table, too."""
    everything: bool = False
    """It is not narrowed at all."""


class TopicRules(Protocol):
    """Who may publish and subscribe where. Whatever it raises means no."""

    async def may_publish(self, identity: Identity, topic: Topic) -> Refusal | None:
        """None if `identity` may publish to the topic now."""
        ...

    async def grant(self, identity: Identity, topic_filter: str) -> Grant | None:
        """What a subscription comes to, or None if it could never match anything permitted."""
        ...


class Gate(Protocol):
    """Authentication and authorization as the broker asks for them: all plugins together.

    It fails closed: a plugin that raises or takes too long has said no.
    """

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        """Who this is, or None if the credentials are wrong. Raises `StoreError` if that cannot be
        told now."""
        ...

    async def may_publish(self, principal: Principal, topic: Topic) -> Refusal | None:
        """None if the client may publish to the topic now."""
        ...

    async def grant(self, principal: Principal, topic_filter: str) -> Grant | None:
        """What a subscription comes to, or None to refuse it. Raises `StoreError` if that cannot be
        told now."""
        ...


IDENTITY_ATTRIBUTE = "parley.identity"
"""Key in a plugin session's `attributes` under which an authenticator leaves the `Identity`."""


class PluginServices(Protocol):
    """What the platform's own plugins find in their context."""

    @property
    def directory(self) -> Directory: ...

    @property
    def passwords(self) -> object:
        """The `plugins.auth` password hasher, shared with the directory."""
        ...

    @property
    def data_dir(self) -> Path: ...

    @property
    def open_filters(self) -> Sequence[str]: ...

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...


class PluginEvents(Protocol):
    """What plugins are told. `packets` and `messages`: whether any of them wants those, as they
    cost something for each packet."""

    packets: bool
    messages: bool

    def connected(self, principal: Principal) -> None: ...

    def disconnected(self, principal: Principal) -> None: ...

    def subscribed(self, filters: Sequence[tuple[str, int]], principal: Principal) -> None: ...

    def unsubscribed(self, filters: Sequence[str], principal: Principal) -> None: ...

    def packet_received(self, packet: bytes, principal: Principal | None) -> None: ...

    def packets_sent(self, packets: bytes, principal: Principal | None) -> None: ...

    def message_received(self, publish: Publish, principal: Principal) -> None: ...

    def message_accepted(self, publish: Publish, principal: Principal) -> None: ...


class BridgePort(Protocol):
    """What bridge handlers stand on: it is the same in the node and as a service of its own."""

    def subscribe(self, topic_filter: str, callback: Callable[[str, bytes], Awaitable[None]]) -> None:
        """Have `callback(topic, payload)` awaited for each message on the filter."""
        ...

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish as the server."""
        ...
