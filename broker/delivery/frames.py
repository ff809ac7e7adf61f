"""What one node tells another of a publication: the bodies of hints.

A body is a msgpack array that begins with its kind. A field is only ever added at the end of an array, with a
default, and a kind that is unknown is ignored: nodes of two neighbouring releases run side by side.
"""

from collections.abc import Callable

import msgspec

from broker.domain.message import Target
from broker.domain.publication import Properties, Publication


class EntryFrame(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="entry"):
    """A stored entry of the topic's log. `body` is that of its message or event, without `offset`."""

    offset: int
    body: bytes
    qos: int = 1
    conversation_id: str = ""
    """Empty for an event."""
    target: Target | None = None
    """The message that an edit or recall is about."""
    properties: Properties | None = None


class PublicationFrame(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="publication"):
    """A message of a topic that is not a log."""

    payload: bytes
    qos: int
    properties: Properties | None = None
    id: int = 0
    """See `delivery.moves`; 0 with QoS 0."""

    def publication(self, topic: str) -> Publication:
        """The message. It is not retained here: the node that it came from does so."""
        return Publication(topic, self.payload, self.qos, properties=self.properties)


Frame = EntryFrame | PublicationFrame

encode_frame = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Frame] = msgspec.msgpack.Decoder(Frame).decode


def decode_frame(body: bytes) -> Frame | None:
    """The frame in a hint; None if this release cannot read it."""
    try:
        return _decode(body)
    except msgspec.DecodeError:
        return None
