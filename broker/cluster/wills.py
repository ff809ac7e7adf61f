"""Wills of the clients of a cluster. A node that dies cannot publish them: whoever cleans up after it does.

The will of a connected client is in the store, as a retained message of `$wills/<node>/<connection>`. No
client can publish there."""

from collections.abc import Awaitable, Callable

import msgspec

from broker.domain.publication import Properties, Publication
from broker.domain.topics import Kind, parse_topic
from broker.ports import Identity, Principal, Retained
from broker.publish.publisher import Publisher
from broker.states import States

_PAGE = 100


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """A will, and whose it is."""

    identity: Identity
    client_id: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: Properties | None = None


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


class Wills:
    """The wills of all nodes; `name` is that of this one. `publish` publishes a will, if its client still has
    the right."""

    def __init__(self, states: States, name: str) -> None:
        self._states = states
        self._name = name
        self._kept: set[str] = set()

    def keep(self, connection_id: str, publisher: Publisher, will: Publication) -> None:
        """A client has connected. A presence needs no will: it is set by whoever cleans up."""
        if parse_topic(will.topic).kind is Kind.PRESENCE:
            return
        identity = publisher.principal.identity
        about = identity, publisher.client_id, will.topic, will.payload, will.qos, will.retain
        kept = _encode(_Kept(*about, will.properties))
        self._kept.add(connection_id)
        self._states.submit([Retained(self._topic(self._name, connection_id), kept, 1)], patient=True)

    def drop(self, connection_id: str) -> None:
        """The connection has ended; its will is published, or is not to be."""
        if connection_id in self._kept:
            self._kept.discard(connection_id)
            self._states.submit([Retained(self._topic(self._name, connection_id), b"", 0)], patient=True)

    async def publish_of(
        self, node: str, publish: Callable[[Publisher, Publication], Awaitable[None] | None]
    ) -> None:
        """Publish the wills of a node that has died, and forget them. Raises `StoreError`."""
        prefix = self._topic(node, "")
        after = ""
        while page := await self._states.store.retained(f"{prefix}#", after, _PAGE):
            after = page[-1].topic
            # Those of this node's own clients stay, if an earlier process of it has died.
            theirs = [each for each in page if each.topic.removeprefix(prefix) not in self._kept]
            for each in theirs:
                will = _decode(each.payload)
                publisher = Publisher(Principal(will.identity), client_id=will.client_id)
                asked = publish(
                    publisher,
                    Publication(will.topic, will.payload, will.qos, will.retain, will.properties),
                )
                if asked is not None:
                    await asked
            await self._states.save([Retained(each.topic, b"", 0) for each in theirs], patient=True)

    @staticmethod
    def _topic(node: str, connection_id: str) -> str:
        return f"$wills/{node}/{connection_id}"
