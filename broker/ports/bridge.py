"""The whole contract between the broker and its services: what crosses from one to the other, and no
more. Either side may be another process.

Everything that crosses is a value that can be written down as JSON. Handlers reach the stores by
themselves, through their own ports; so what the services need of the broker is what only it has:
the one way into the logs, and who is connected.

When the other side cannot be reached, a call raises `StoreError`: whether it was carried out is
then unknown. Messages with a `client_msg_id` can be sent again; nothing else needs to be.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from broker.domain.errors import Refusal
from broker.domain.message import Body, Draft
from broker.ports.conversations import Arrival


class Post(msgspec.Struct, frozen=True):
    """What somebody publishes to `users/<id>/inbox` or `groups/<id>`."""

    topic: str
    payload: bytes


class Device(msgspec.Struct, frozen=True):
    """A connected client; `user` is "" for an anonymous one, `address` is the other end's host:port."""

    user: str
    client_id: str
    address: str

    @property
    def sort_key(self) -> str:
        """What listings are ordered and paged by."""
        return f"{self.user} {self.client_id}"  # no user id has a space


class PresenceChange(msgspec.Struct, frozen=True):
    """What is retained on a user's presence topic now: a `PresenceDocument` in JSON."""

    user: str
    document: bytes


Posted = Body | Refusal
"""A message as it is stored, or why it is not: the contract's code, or `unavailable`."""


class BrokerPort(Protocol):
    """The broker, as its services see it. Every method but `emit` raises `StoreError` when the broker
    cannot be reached."""

    async def publish(self, sender: str, posts: Sequence[Post]) -> list[Posted]:
        """Store messages as if `sender` had published them, with all rules of their topics; the
        system may publish anywhere. In their order; one that is refused does not keep the others.
        A `client_msg_id` that was sent before gives the message that was stored then."""
        ...

    async def append(self, drafts: Sequence[Draft]) -> list[Posted]:
        """Store messages whose rules the caller has looked at: edits, recalls, system entries. Else
        as `publish`."""
        ...

    async def emit(self, users: Sequence[str], event: Mapping[str, Any], *, keep: bool = True) -> None:
        """Send an event to the sessions of some users; with `keep`, those that are away get it later.
        Never raises, as what it tells of has happened: when the broker is gone the event is lost and
        logged, and what it tells of can be asked for."""
        ...

    async def devices(self, users: Sequence[str]) -> dict[str, list[str]]:
        """The client ids that users are connected with; who is not connected is left out."""
        ...

    async def connections(self, user: str, after: str, limit: int) -> list[Device]:
        """The first `limit` clients by their `sort_key`, those after `after` only, of one user or ("") of
        all."""
        ...

    async def kick(self, user: str) -> int:
        """End all connections of a user, who may come back; returns how many there were."""
        ...

    async def watch(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        """Have `grown` called whenever the log of an inbox or group topic has grown, until the result
        is called. A hint: it may come once too often, and it comes when the broker was gone, since
        something may have been missed."""
        ...

    async def stats(self) -> dict[str, int]:
        """Counters and gauges of the node, by flat names."""
        ...


class ServicesPort(Protocol):
    """The services, as the broker sees them. Every method raises `StoreError` when they cannot be
    reached."""

    async def call(self, user: str, method: str, payload: bytes) -> bytes:
        """Answer what a user published to `users/<user>/rpc/<method>`: the reply's payload, whether
        the method succeeded or not. Without services the broker replies `unavailable`."""
        ...

    async def arrived(self, batch: Sequence[Arrival]) -> None:
        """Devices acknowledged entries of their users' inboxes. Without services it is lost: what has
        arrived is told again with the next message of the conversation."""
        ...

    async def presence_changed(self, batch: Sequence[PresenceChange]) -> None:
        """Presences changed, each user's last one last. Without services contacts are not told, and
        see it when they ask."""
        ...
