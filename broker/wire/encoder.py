"""The packets a server sends, as bytes."""

from struct import Struct

from broker.domain.publication import Publication
from broker.wire.packets import Type

_ACK = Struct(">BBH").pack

PINGRESP = b"\xd0\x00"


def remaining_length(length: int) -> bytes:
    """The Remaining Length field (2.2.3): 7 bits a byte, lowest first."""
    if length < 128:
        return bytes((length,))
    out = bytearray()
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)


def connack(code: int, session_present: bool = False) -> bytes:
    """CONNACK (3.2). `code` is a `ConnectCode`."""
    return bytes((Type.CONNACK << 4, 2, session_present, code))


def puback(packet_id: int) -> bytes:
    """PUBACK (3.4)."""
    return _ACK(0x40, 2, packet_id)


def pubrec(packet_id: int) -> bytes:
    """PUBREC (3.5)."""
    return _ACK(0x50, 2, packet_id)


def pubrel(packet_id: int) -> bytes:
    """PUBREL (3.6), with its reserved flags [MQTT-3.6.1-1]."""
    return _ACK(0x62, 2, packet_id)


def pubcomp(packet_id: int) -> bytes:
    """PUBCOMP (3.7)."""
    return _ACK(0x70, 2, packet_id)


def suback(packet_id: int, codes: list[int]) -> bytes:
    """SUBACK (3.9). `codes` are granted QoS values or 0x80, in the order of the filters [MQTT-3.9.3-1]."""
    return b"\x90%b%b%b" % (remaining_length(2 + len(codes)), packet_id.to_bytes(2, "big"), bytes(codes))


def unsuback(packet_id: int) -> bytes:
    """UNSUBACK (3.11)."""
    return _ACK(0xB0, 2, packet_id)


class Outgoing:
    """A message to deliver, encoded once for all receivers.

    With QoS 0 the receivers share the whole packet. With QoS 1 and 2 they share all but the packet id: a
    receiver joins `head(qos)`, its packet id and `payload`. `retain` is set only for a message that is sent
    because it was retained when the client subscribed [MQTT-3.3.1-8]. For all others it is 0, whatever the
    publisher set [MQTT-3.3.1-9]. MQTT 3.1.1 cannot send `properties`: they are for sessions that queue the
    message.
    """

    __slots__ = ("_frame", "_heads", "payload", "publication", "qos", "retain")

    def __init__(self, publication: Publication, retain: bool = False) -> None:
        self.publication = publication
        # Copies, as each receiver looks at them.
        self.payload = publication.payload
        self.qos = publication.qos
        self.retain = retain
        self._frame = b""
        self._heads: list[bytes | None] | None = None

    def frame(self) -> bytes:
        """The whole PUBLISH packet (3.3) with QoS 0."""
        if not self._frame:
            name = self.publication.topic.encode()
            length = remaining_length(2 + len(name) + len(self.payload))
            first = b"\x31" if self.retain else b"\x30"
            self._frame = b"%b%b%b%b%b" % (first, length, len(name).to_bytes(2, "big"), name, self.payload)
        return self._frame

    def head(self, qos: int) -> bytes:
        """The bytes before the packet id, with QoS 1 or 2."""
        heads = self._heads
        if heads is None:
            heads = self._heads = [None, None, None]
        head = heads[qos]
        if head is None:
            name = self.publication.topic.encode()
            length = remaining_length(4 + len(name) + len(self.payload))
            first = 0x30 | qos << 1 | self.retain
            head = b"%c%b%b%b" % (first, length, len(name).to_bytes(2, "big"), name)
            heads[qos] = head
        return head

    def packet(self, qos: int, packet_id: int, dup: bool = False) -> bytes:
        """The whole PUBLISH packet with QoS 1 or 2. `dup` marks a redelivery [MQTT-3.3.1-1]."""
        head = self.head(qos)
        if dup:
            head = b"%c%b" % (head[0] | 8, head[1:])
        return b"%b%b%b" % (head, packet_id.to_bytes(2, "big"), self.payload)
