"""Authentication, authorization, and the plugins' view of the broker."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from broker.domain.attempts import Attempts
from broker.domain.errors import Refusal
from broker.domain.publication import Publication
from broker.domain.rates import network_of
from broker.domain.subscription import Subscription
from broker.domain.topics import Topic
from broker.ports.directory import Directory


class Credentials(msgspec.Struct, frozen=True):
    """The credentials of a CONNECT. The password is the bytes as sent (MQTT 3.1.1, 3.1.3.5)."""

    client_id: str
    username: str | None
    password: bytes | None
    remote_address: str
    remote_port: int


class Identity(msgspec.Struct, frozen=True):
    """The user of an authenticated connection. `user` is "" for an anonymous one.

    `expires_at`: Unix seconds at which the credential expires, or None."""

    user: str
    role: str = "user"
    expires_at: float | None = None
    token_id: str = ""
    """The id of the token it was authenticated by; "" for a password, or a token without an id."""
    token_issued_at: float = 0.0
    """Unix seconds; 0 for a password. Tokens with an earlier time than the account's `tokens_after` are not
    accepted any more."""


class Principal:
    """An authenticated client: its identity, amqtt's session object, which plugins see, its client id, and
    its address and port."""

    __slots__ = ("client_id", "identity", "peer", "plugin_session")

    def __init__(
        self,
        identity: Identity,
        plugin_session: object = None,
        client_id: str = "",
        peer: tuple[str, int] = ("", 0),
    ) -> None:
        self.identity = identity
        self.plugin_session = plugin_session
        self.client_id = client_id
        self.peer = peer

    @property
    def counted_as(self) -> str:
        """Whose log lines are summed up and retained messages counted: the user, or the address of an
        anonymous client. With a space before it: a user may have an id like 192.0.2.1."""
        return self.identity.user or f" {network_of(self.peer[0])}"

    def renew(self, identity: Identity) -> bool:
        """Go on with a fresh token of the same user. Returns False, and changes nothing, if the client was
        not authenticated by a token, or if the user's role is another one."""
        before = self.identity
        if before.expires_at is None or (identity.user, identity.role) != (before.user, before.role):
            return False
        self.identity = identity
        return True


class Grant(msgspec.Struct, frozen=True):
    """What a user may read through a topic filter now."""

    topics: Mapping[str, int]
    """Topics of the table (docs/topics.md) that the filter matches and the user may read -> an offset. The
    user may read the entries of the log after this offset; 0 for all."""
    open: bool = False
    """Whether the filter also reaches topics outside the table."""
    everything: bool = False
    """Whether the filter is not narrowed at all: the user is an administrator."""
    since: int = 0
    """Private messages sent before this time (Unix ms) were for an earlier account with the user's id."""


class TopicRules(Protocol):
    """Who may publish and subscribe where. Any exception means no."""

    async def may_publish(self, identity: Identity, topic: Topic) -> Refusal | None:
        """None if `identity` may publish to the topic now."""
        ...

    async def grant(self, identity: Identity, topic_filter: str) -> Grant | None:
        """What the filter grants now, or None if it can never match a permitted topic."""
        ...


class Gate(Protocol):
    """The decisions of all authentication and topic plugins together.

    It fails closed: a plugin that raises or takes too long counts as no.
    """

    async def authenticate(self, credentials: Credentials) -> Principal | None:
        """The client, or None if the credentials are wrong.

        Raises:
            StoreError: that cannot be decided now.
            TooManyAttemptsError: too many passwords were wrong; this one was not looked at.
        """
        ...

    async def may_publish(self, principal: Principal, topic: Topic) -> Refusal | None:
        """None if the client may publish to the topic now."""
        ...

    async def user_may_publish(self, identity: Identity, topic: Topic) -> Refusal | None:
        """None if the platform's own rules let the user publish to the topic now. For publishes that come
        from no connection, so other plugins are not asked."""
        ...

    async def may_receive(self, principal: Principal, topic: str) -> bool:
        """Whether the plugins other than the platform's let a client receive messages of a topic."""
        ...

    async def grant(self, principal: Principal, topic_filter: str) -> Grant | None:
        """What the filter grants now, or None to refuse the subscription. Raises `StoreError` if that
        cannot be decided now."""
        ...


IDENTITY_ATTRIBUTE = "parley.identity"
"""The key in `attributes` of amqtt's session under which the authentication plugin stores the `Identity`."""


class PluginServices(Protocol):
    """The services that the platform's own plugins find in their context."""

    @property
    def directory(self) -> Directory: ...

    @property
    def passwords(self) -> object:
        """The `plugins.auth` password hasher, shared with the directory."""
        ...

    @property
    def attempts(self) -> Attempts:
        """The count of wrong passwords that all ways in share."""
        ...

    @property
    def data_dir(self) -> Path: ...

    @property
    def open_filters(self) -> Sequence[str]: ...

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...


class PluginEvents(Protocol):
    """The events that plugins can hear. `packets` and `messages` tell whether a plugin listens to these
    two kinds: they cost time for each packet, so they are skipped if none does."""

    packets: bool
    messages: bool

    def connected(self, principal: Principal) -> None: ...

    def disconnected(self, principal: Principal) -> None: ...

    def subscribed(self, subscriptions: Sequence[Subscription], principal: Principal) -> None: ...

    def unsubscribed(self, filters: Sequence[str], principal: Principal) -> None: ...

    def packet_received(self, packet: bytes, principal: Principal | None) -> None: ...

    def packets_sent(self, packets: bytes, principal: Principal | None) -> None: ...

    def message_received(self, publication: Publication, packet_id: int, principal: Principal) -> None: ...

    def message_accepted(self, publication: Publication, packet_id: int, principal: Principal) -> None: ...
