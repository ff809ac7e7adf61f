"""Authentication, authorization, and what plugins see."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from broker.domain.errors import Refusal
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.domain.topics import Topic
from broker.ports.directory import Directory


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
    token_id: str = ""
    """Of the token it was authenticated by; "" for a password, or a token without an id."""
    token_issued_at: float = 0.0
    """Unix seconds; 0 for a password."""


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

    async def user_may_publish(self, identity: Identity, topic: Topic) -> Refusal | None:
        """What the platform's own rules have against a user publishing to a topic, from no connection
        in particular."""
        ...

    async def may_receive(self, principal: Principal, topic: str) -> bool:
        """Whether plugins other than the platform's let a client have messages of a topic."""
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

    def subscribed(self, subscriptions: Sequence[Subscription], principal: Principal) -> None: ...

    def unsubscribed(self, filters: Sequence[str], principal: Principal) -> None: ...

    def packet_received(self, packet: bytes, principal: Principal | None) -> None: ...

    def packets_sent(self, packets: bytes, principal: Principal | None) -> None: ...

    def message_received(self, publication: Publication, packet_id: int, principal: Principal) -> None: ...

    def message_accepted(self, publication: Publication, packet_id: int, principal: Principal) -> None: ...
