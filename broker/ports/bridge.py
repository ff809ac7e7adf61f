"""The whole interface between the broker and its services. Either side may be another process.

All arguments and results are values that can be written as JSON. The services reach the stores through
the stores' own ports. From the broker they need only what it alone has: the one way into the logs, and
the connected clients.

A call raises `StoreError` when the other side cannot be reached. It is then unknown whether the call was
carried out. Messages with a `client_msg_id` can be sent again without harm. No other call needs to be.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from broker.domain.errors import Refusal
from broker.domain.message import Body, Draft
from broker.ports.conversations import Arrival
from broker.ports.plugins import Identity


class Post(msgspec.Struct, frozen=True):
    """A publication to `users/<id>/inbox` or `groups/<id>`."""

    topic: str
    payload: bytes


class Device(msgspec.Struct, frozen=True):
    """A connected client. `user` is "" for an anonymous one; `address` is the client's host:port."""

    user: str
    client_id: str
    address: str
    since: int = 0
    """When it was connected, Unix ms."""
    persistent: bool = False
    """Whether its session lasts when the connection ends."""
    subscriptions: int = 0
    qos: int | None = None
    """The highest QoS of its subscriptions; None without any."""
    backlog: int = 0
    """How many messages wait for it, see `Session.backlog`."""
    node: str = ""
    """The name of its node; "" if there is only one."""

    @property
    def sort_key(self) -> str:
        """The key by which listings are ordered and paged."""
        return f"{self.user} {self.client_id}"  # no user id has a space


class PresenceChange(msgspec.Struct, frozen=True):
    """A user's new presence. `document` is a `PresenceDocument` as JSON."""

    user: str
    document: bytes


Posted = Body | Refusal
"""The stored message, or the refusal: with a code of docs/topics.md, "Events", or `unavailable`."""


class BrokerPort(Protocol):
    """The broker as its services see it. Every method but `emit` raises `StoreError` when the broker
    cannot be reached."""

    async def publish(self, sender: str, posts: Sequence[Post]) -> list[Posted]:
        """Store messages under all rules of their topics, as if `sender` had published them. The sender
        `system` may publish anywhere.

        The messages are stored in their order. A refusal of one does not stop the others. For a
        `client_msg_id` that was sent before, the result is the message stored then."""
        ...

    async def append(self, drafts: Sequence[Draft]) -> list[Posted]:
        """Store messages whose rules the caller has checked: edits, recalls, system entries. Otherwise
        as `publish`."""
        ...

    async def pace(self, user: str, publishes: int, *, wait: bool) -> None:
        """A user does by calls what counts as so many publishes (`limits.publishes_per_second`). With `wait`,
        returns when the user may publish again, mostly at once. Without, the user's connections are read
        from later."""
        ...

    async def emit(self, users: Sequence[str], event: Mapping[str, Any], *, keep: bool = True) -> None:
        """Send an event to the sessions of some users. With `keep`, their sessions that are away get it
        later. Never raises, since the change it reports has happened: if the broker cannot be reached
        the event is lost. A client can query what it reports."""
        ...

    async def push(self, users: Sequence[str], event: Mapping[str, Any]) -> list[str]:
        """Send an event to the sessions of some users that are connected and subscribed to their events. It
        is not kept. Returns the users who have such a session, as far as their nodes can be reached."""
        ...

    async def devices(self, users: Sequence[str]) -> dict[str, list[str]]:
        """User -> the client ids of their connections. Users without a connection are left out. The user ""
        stands for all anonymous clients."""
        ...

    async def connections(self, user: str, after: str, limit: int) -> list[Device]:
        """The first `limit` clients by `sort_key` among those after `after`. `user` "" means all users."""
        ...

    async def kick(self, user: str) -> int:
        """End all connections of a user, who may connect again. Returns the number of connections."""
        ...

    async def renew(self, client_id: str, identity: Identity) -> bool:
        """A connected client of `identity.user` goes on with a fresh token, whose claims `identity` holds.
        Returns False if it is not connected, or was not authenticated by a token."""
        ...

    async def watch(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        """Call `grown` whenever the log of an inbox or group topic has grown. Call the result to stop.

        `grown` is a hint and may come once too often. It also comes when the broker is reachable again
        after a break, because growth may have been missed."""
        ...

    async def stats(self) -> dict[str, int]:
        """Flat names -> counters and gauges, of all nodes together."""
        ...


class ServicesPort(Protocol):
    """The services as the broker sees them. Every method raises `StoreError` when the services cannot be
    reached."""

    async def call(self, user: str, method: str, payload: bytes, client_id: str = "") -> bytes:
        """Answer a publication of a client to `users/<user>/rpc/<method>`. Returns the payload of the
        reply, which says whether the method succeeded. If the services cannot be reached the broker
        replies `unavailable`."""
        ...

    async def arrived(self, batch: Sequence[Arrival]) -> None:
        """Devices acknowledged entries of their users' inboxes. If the services cannot be reached the
        report is lost: the next acknowledged message of a conversation moves its watermark further."""
        ...

    async def presence_changed(self, batch: Sequence[PresenceChange]) -> None:
        """Presences changed, in the order of the changes. If the services cannot be reached the contacts
        get no event, and see the change when they query it."""
        ...
