"""Packets a server sends, to bytes."""

from struct import Struct

from broker.domain.publication import Publication
from broker.wire.packets import Type

_ACK = Struct(">BBH").pack

PINGRESP = b"\xd0\x00"


def remaining_length(length: int) -> bytes:
    """2.2.3."""
    if length < 128:
        return bytes((length,))
    out = bytearray()
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)


def connack(code: int, session_present: bool = False) -> bytes:
    """3.2."""
    return bytes((Type.CONNACK << 4, 2, session_present, code))


def puback(packet_id: int) -> bytes:
    """3.4."""
    return _ACK(0x40, 2, packet_id)


def pubrec(packet_id: int) -> bytes:
    """3.5."""
    return _ACK(0x50, 2, packet_id)


def pubrel(packet_id: int) -> bytes:
    """3.6, with its reserved flags [MQTT-3.6.1-1]."""
    return _ACK(0x62, 2, packet_id)


def pubcomp(packet_id: int) -> bytes:
    """3.7."""
    return _ACK(0x70, 2, packet_id)


def suback(packet_id: int, codes: list[int]) -> bytes:
    """3.9. `codes` are granted QoS values or 0x80, in the order of the filters."""
    return b"\x90%b%b%b" % (remaining_length(2 + len(codes)), packet_id.to_bytes(2, "big"), bytes(codes))


def unsuback(packet_id: int) -> bytes:
    """3.11."""
    return _ACK(0xB0, 2, packet_id)


class Outgoing:
    """A message on its way out, encoded once for all its receivers.

    With QoS 0 the whole packet is shared; with QoS 1 and 2 all but the packet id is:
    receivers join `head(qos)`, their packet id and `payload`. `retain` tells a receiver that
    it was retained [MQTT-3.3.1-8]; whether it was published so does not matter [MQTT-3.3.1-9].
    MQTT 3.1.1 has no place for `properties`: they are kept for whoever queues the message.
    """

    __slots__ = ("_frame", "_heads", "payload", "properties", "qos", "retain", "topic")

    def __init__(self, publication: Publication, retain: bool = False) -> None:
        self.topic = publication.topic
        self.payload = publication.payload
        self.qos = publication.qos
        self.properties = publication.properties
        self.retain = retain
        self._frame = b""
        self._heads: list[bytes | None] | None = None

    def frame(self) -> bytes:
        """The whole PUBLISH with QoS 0."""
        if not self._frame:
            name = self.topic.encode()
            length = remaining_length(2 + len(name) + len(self.payload))
            first = b"\x31" if self.retain else b"\x30"
            self._frame = b"%b%b%b%b%b" % (first, length, len(name).to_bytes(2, "big"), name, self.payload)
        return self._frame

    def head(self, qos: int) -> bytes:
        """What stands before the packet id with QoS 1 or 2."""
        heads = self._heads
        if heads is None:
            heads = self._heads = [None, None, None]
        head = heads[qos]
        if head is None:
            name = self.topic.encode()
            length = remaining_length(4 + len(name) + len(self.payload))
            first = 0x30 | qos << 1 | self.retain
            head = b"%c%b%b%b" % (first, length, len(name).to_bytes(2, "big"), name)
            heads[qos] = head
        return head

    def packet(self, qos: int, packet_id: int, dup: bool = False) -> bytes:
        """The whole PUBLISH with QoS 1 or 2."""
        head = self.head(qos)
        if dup:
            head = b"%c%b" % (head[0] | 8, head[1:])
        return b"%b%b%b" % (head, packet_id.to_bytes(2, "big"), self.payload)
