"""Bytes to packets: framing (2.2) and the packets a server may receive.

The decoder is fed with received bytes and asked for one packet at a time, so its caller can stop between
two packets and go on later. A packet that announces more than `max_packet` bytes is refused from its
header alone, before its body is buffered.
"""

from broker.domain.errors import RemoteError
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.domain.topics import is_valid_filter, is_wild
from broker.wire.packets import (
    Ack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Publish,
    Subscribe,
    Type,
    Unsubscribe,
)

# As a module global, because looking up a member on its enum class costs five times as much.
_PUBACK = Type.PUBACK


class MalformedPacketError(RemoteError):
    """The bytes are not an MQTT packet that a client may send."""


class UnsupportedProtocolError(RemoteError):
    """A CONNECT with an unsupported protocol version: to be answered by CONNACK 1 [MQTT-3.1.2-2]."""


class Decoder:
    """Splits a byte stream into packets.

    `max_packet` is the largest size of a whole packet in bytes, header included.
    """

    __slots__ = ("_buffer", "_max_packet", "_need", "_pos", "_start", "_tail")

    def __init__(self, max_packet: int) -> None:
        self._max_packet = max_packet
        self._buffer = b""
        self._pos = 0
        self._start = 0
        self._tail = bytearray()
        self._need = 0

    def allow(self, max_packet: int) -> None:
        """Set a new `max_packet` for the packets from here on."""
        self._max_packet = max_packet

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        if not self._tail:
            # The buffer still holds packets if the caller stopped before next_packet() returned None.
            self._buffer = data if self._pos == len(self._buffer) else self._buffer[self._pos :] + data
            self._pos = 0
            return
        # A packet that arrives in pieces is appended in place. Joining all pieces again for each new one
        # would cost the square of its size.
        self._tail += data
        if len(self._tail) >= self._need:
            self._buffer = bytes(self._tail)
            self._pos = 0
            self._tail = bytearray()

    @property
    def buffered(self) -> int:
        """The number of bytes fed but not yet returned as packets."""
        return len(self._buffer) - self._pos + len(self._tail)

    @property
    def unread(self) -> int:
        """The number of those bytes that are not known to need more: 0 once next_packet() returned None."""
        return len(self._buffer) - self._pos

    @property
    def packet(self) -> bytes:
        """The bytes of the packet that `next_packet` last returned."""
        return self._buffer[self._start : self._pos]

    def next_packet(self) -> Packet | None:
        """The next whole packet, or None until more bytes are fed.

        Raises:
            MalformedPacketError: the stream is broken. No further packet can be read.
            UnsupportedProtocolError: a CONNECT with an unsupported protocol version.
        """
        buffer, pos = self._buffer, self._pos
        size = len(buffer)
        if size - pos < 2:
            self._keep(2)
            return None
        first = buffer[pos]
        length = buffer[pos + 1]
        start = pos + 2
        if length > 127:
            length &= 127
            shift = 7
            while True:
                if start == size:
                    self._keep(start - pos + 1)
                    return None
                byte = buffer[start]
                start += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
                if shift > 21:  # 2.2.3: at most four bytes
                    raise MalformedPacketError("remaining length of more than four bytes")
        end = start + length
        if end - pos > self._max_packet:
            raise MalformedPacketError(f"packet of {end - pos} bytes, the limit is {self._max_packet}")
        if end > size:
            self._keep(end - pos)
            return None
        self._start = pos
        self._pos = end
        if first & 0xF0 == 0x30:
            return _publish(first, buffer, start, end)
        # Fast path: beside PUBLISH, a busy connection sends mostly PUBACK. Packet id 0 falls through to
        # `_decode`, which refuses it.
        if first == 0x40 and length == 2:
            packet_id = buffer[start] << 8 | buffer[start + 1]
            if packet_id:
                return Ack(_PUBACK, packet_id)
        return _decode(first, buffer[start:end])

    def _keep(self, need: int) -> None:
        """Move the unfinished packet to `_tail` until `need` bytes of it have arrived."""
        if self._pos < len(self._buffer):
            self._tail += self._buffer[self._pos :]
            self._need = need
        self._buffer = b""
        self._pos = 0


def _publish(first: int, buffer: bytes, pos: int, end: int) -> Publish:
    """PUBLISH (3.3): `first` is the first header byte, the body is `buffer[pos:end]`."""
    if end - pos < 2:
        raise MalformedPacketError("PUBLISH without a topic")
    topic_end = pos + 2 + (buffer[pos] << 8 | buffer[pos + 1])
    qos = first >> 1 & 3
    if qos == 3:  # [MQTT-3.3.1-4]
        raise MalformedPacketError("PUBLISH with QoS 3")
    body = topic_end + 2 if qos else topic_end
    if body > end:
        raise MalformedPacketError("PUBLISH too short for its topic and packet id")
    topic = _text(buffer[pos + 2 : topic_end])
    if not topic:  # [MQTT-4.7.3-1]
        raise MalformedPacketError("PUBLISH to an empty topic")
    if is_wild(topic):  # [MQTT-3.3.2-2]
        raise MalformedPacketError(f"wildcard in topic name {topic[:100]!r}")
    if not qos:
        if first & 8:  # [MQTT-3.3.1-2]
            raise MalformedPacketError("PUBLISH with DUP and QoS 0")
        return Publish(topic, buffer[body:end], 0, bool(first & 1))
    packet_id = buffer[topic_end] << 8 | buffer[topic_end + 1]
    if not packet_id:  # [MQTT-2.3.1-1]
        raise MalformedPacketError("PUBLISH with packet id 0")
    return Publish(topic, buffer[body:end], qos, bool(first & 1), None, packet_id, bool(first & 8))


def _text(data: bytes) -> str:
    """A UTF-8 string (1.5.3)."""
    try:
        text = data.decode()  # Python's decoder refuses surrogates [MQTT-1.5.3-1]
    except UnicodeDecodeError:
        raise MalformedPacketError("malformed UTF-8") from None
    if "\0" in text:  # [MQTT-1.5.3-2]
        raise MalformedPacketError("U+0000 in a string")
    return text


class _Reader:
    """Reads the fields of one packet's body. The methods raise `IndexError` when it is too short."""

    __slots__ = ("data", "pos")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0

    def byte(self) -> int:
        pos = self.pos
        self.pos = pos + 1
        return self.data[pos]

    def uint16(self) -> int:
        data, pos = self.data, self.pos
        self.pos = pos + 2
        return data[pos] << 8 | data[pos + 1]

    def binary(self) -> bytes:
        data = self.data
        start = self.pos + 2
        end = start + (data[start - 2] << 8 | data[start - 1])
        if end > len(data):
            raise IndexError
        self.pos = end
        return data[start:end]

    def text(self) -> str:
        return _text(self.binary())

    def packet_id(self) -> int:
        value = self.uint16()
        if not value:  # [MQTT-2.3.1-1]
            raise MalformedPacketError("packet id 0")
        return value

    def more(self) -> bool:
        return self.pos < len(self.data)


# Packet type -> the required low four bits of the first byte (2.2.2). Only a server sends CONNACK, SUBACK,
# UNSUBACK and PINGRESP, so they have no row.
_FLAGS = {
    Type.CONNECT: 0,
    Type.PUBACK: 0,
    Type.PUBREC: 0,
    Type.PUBREL: 2,
    Type.PUBCOMP: 0,
    Type.SUBSCRIBE: 2,
    Type.UNSUBSCRIBE: 2,
    Type.PINGREQ: 0,
    Type.DISCONNECT: 0,
}


def _decode(first: int, body: bytes) -> Packet:
    kind = first >> 4
    flags = _FLAGS.get(kind)  # type: ignore[call-overload]  # an int finds its IntEnum key
    if flags is None:
        raise MalformedPacketError(f"packet type {kind} is not for clients to send")
    if flags != first & 0x0F:  # [MQTT-2.2.2-2]
        raise MalformedPacketError(f"invalid header flags of packet type {kind}")
    reader = _Reader(body)
    try:
        packet = _fields(kind, reader)
    except IndexError:
        raise MalformedPacketError("packet too short for its fields") from None
    if reader.more():
        raise MalformedPacketError(f"{len(body) - reader.pos} surplus bytes in packet type {kind}")
    return packet


def _fields(kind: int, reader: _Reader) -> Packet:
    match kind:
        case Type.CONNECT:
            return _connect(reader)
        case Type.SUBSCRIBE:
            return _subscribe(reader)
        case Type.UNSUBSCRIBE:
            return _unsubscribe(reader)
        case Type.PINGREQ:
            return Pingreq()
        case Type.DISCONNECT:
            return Disconnect()
        case _:
            return Ack(kind, reader.packet_id())


def _connect(reader: _Reader) -> Connect:
    """CONNECT (3.1)."""
    name = reader.text()
    if name not in ("MQTT", "MQIsdp"):  # [MQTT-3.1.2-1]; MQTT 3.1 has the name MQIsdp
        raise MalformedPacketError(f"invalid protocol name {name[:16]!r}")
    level = reader.byte()
    if level != 4 or name != "MQTT":
        raise UnsupportedProtocolError(f"protocol {name} level {level}: only MQTT level 4 (3.1.1) is known")
    flags = reader.byte()
    if flags & 1:  # [MQTT-3.1.2-3]
        raise MalformedPacketError("reserved CONNECT flag is set")
    has_will, will_qos, will_retain = flags & 4, flags >> 3 & 3, bool(flags & 32)
    if will_qos == 3 or (not has_will and (will_qos or will_retain)):  # [MQTT-3.1.2-11] ff.
        raise MalformedPacketError("invalid will flags of CONNECT")
    if flags & 64 and not flags & 128:  # [MQTT-3.1.2-22]
        raise MalformedPacketError("CONNECT with a password but no user name")
    keep_alive = reader.uint16()
    client_id = reader.text()
    will = None
    if has_will:
        topic = reader.text()
        if not topic or is_wild(topic):
            raise MalformedPacketError(f"invalid will topic {topic[:100]!r}")
        will = Publication(topic, reader.binary(), will_qos, will_retain)
    username = reader.text() if flags & 128 else None
    password = reader.binary() if flags & 64 else None
    return Connect(client_id, level, bool(flags & 2), keep_alive, username, password, will)


def _subscribe(reader: _Reader) -> Subscribe:
    """SUBSCRIBE (3.8)."""
    packet_id = reader.packet_id()
    subscriptions = []
    while reader.more():
        topic_filter, qos = reader.text(), reader.byte()
        if qos > 2:  # [MQTT-3-8.3-4]
            raise MalformedPacketError("SUBSCRIBE with an invalid QoS")
        subscriptions.append(Subscription(_filter(topic_filter), qos))
    if not subscriptions:  # [MQTT-3.8.3-3]
        raise MalformedPacketError("SUBSCRIBE without a filter")
    return Subscribe(packet_id, subscriptions)


def _unsubscribe(reader: _Reader) -> Unsubscribe:
    """UNSUBSCRIBE (3.10)."""
    packet_id = reader.packet_id()
    filters = []
    while reader.more():
        filters.append(_filter(reader.text()))
    if not filters:  # [MQTT-3.10.3-2]
        raise MalformedPacketError("UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, filters)


def _filter(topic_filter: str) -> str:
    if not is_valid_filter(topic_filter):
        raise MalformedPacketError(f"invalid topic filter {topic_filter[:100]!r}")
    return topic_filter
