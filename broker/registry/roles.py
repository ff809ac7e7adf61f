"""What the registry asks of its surroundings: connections, limits, a clock, the other nodes."""

from collections.abc import Mapping
from typing import Protocol

from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.ports import Claimed, Enqueued, Identity, QueuedMessage, SessionKey
from broker.publish.publisher import Publisher
from broker.session.roles import Limits, Outbox
from broker.session.session import Session


class Client(Protocol):
    """A connection as the registry sees it."""

    @property
    def session(self) -> Session | None: ...

    @property
    def publisher(self) -> Publisher: ...

    @property
    def will(self) -> Publication | None: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def peer(self) -> tuple[str, int]:
        """The address and port of the other end."""
        ...

    @property
    def closed(self) -> bool: ...

    def adopt(self, session: Session) -> None:
        """Serve this session from now on."""
        ...

    def release_session(self) -> None:
        """Serve no session from now on."""
        ...

    def drop_will(self) -> None:
        """Publish no will when the connection ends."""
        ...

    def renew(self, identity: Identity) -> bool:
        """Go on with a fresh token, see `Principal.renew`. Returns whether it did."""
        ...

    def close(self, reason: str) -> None:
        """End the connection. It is detached from the registry before this returns."""
        ...


class RegistryLimits(Limits, Protocol):
    """What a user may hold."""

    connections_per_user: int
    sessions_per_user: int


class RegistryClock(Protocol):
    """See `broker.clock.SystemClock`."""

    def now_ms(self) -> int: ...

    def steady_ms(self) -> int: ...


class Arriving(Protocol):
    """A connection that is about to get its session, as the other nodes know it."""

    @property
    def connection_id(self) -> str: ...

    @property
    def devices(self) -> int | None:
        """How many devices its user has on all nodes, with this one. None: unknown."""
        ...

    @property
    def is_superseded(self) -> bool:
        """Whether a newer connection of the session has come to another node."""
        ...


class Elsewhere(Protocol):
    """The other nodes of a cluster, where a session may be connected, too.

    A connection arrives, then its session is claimed in the store, then it is attached. Who arrives later
    gets the session: the earlier connection ends, and its state is stored, before the later one claims. If
    the other nodes cannot be reached, the claims alone decide: a connection whose session was claimed
    elsewhere ends at its next change."""

    async def arrive(self, key: SessionKey, since: int) -> Arriving:
        """A client is about to get a session here, at `since` (Unix ms). On return it has no other
        connection on other nodes."""
        ...

    def attached(self, session: Session, arriving: Arriving, client: Client) -> None:
        """It has got it."""
        ...

    def withdrawn(self, arriving: Arriving) -> None:
        """It has not got it."""
        ...

    def claimed(self, key: SessionKey, claimed: Claimed) -> None:
        """The session is claimed. Takes from its queue what is twice in it."""
        ...

    def resumed(self, session: Session) -> None:
        """Whatever the session is subscribed to reaches this node from now on."""
        ...

    def detaching(self, session: Session) -> None:
        """The connection of a session is about to end."""
        ...

    def detached(self, session: Session, *, is_stored: bool) -> None:
        """The session is not connected here any more. Unless `is_stored`, `stored` follows: until then the
        other nodes must not claim it."""
        ...

    def stored(self, key: SessionKey, epoch: int | None, filters: Mapping[str, Subscription]) -> None:
        """The state of a session that is away is in the store."""
        ...

    def take_missed(self, key: SessionKey, epoch: int, message: QueuedMessage) -> None:
        """A message was missed under an epoch, while the session was being claimed here."""
        ...

    def missed(self, change: Enqueued) -> None:
        """A message was not queued, because the session has been claimed since."""
        ...
