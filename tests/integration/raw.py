"""A raw MQTT 3.1.1 client: sends any bytes, and reads packets one by one."""

import socket
from typing import NamedTuple

from broker.domain.publication import Publication
from broker.wire.encoder import Outgoing, puback, remaining_length

TIMEOUT = 20.0


class RawPacket(NamedTuple):
    """A received packet: its type and flags, and the bytes after the fixed header."""

    first: int
    body: bytes

    @property
    def type(self) -> int:
        return self.first >> 4


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes((first,)) + remaining_length(len(body)) + body


def connect(
    client_id: str,
    user: str | None = None,
    password: str | None = None,
    *,
    clean: bool = True,
    keep_alive: int = 0,
    will: tuple[str, bytes, int, bool] | None = None,
) -> bytes:
    """A CONNECT; `will` is (topic, payload, QoS, retain)."""
    flags = 2 * clean
    payload = text(client_id)
    if will is not None:
        topic, message, qos, retain = will
        flags |= 4 | qos << 3 | retain << 5
        payload += text(topic) + text(message)
    if user is not None:
        flags |= 128
        payload += text(user)
    if password is not None:
        flags |= 64
        payload += text(password)
    return packet(0x10, text("MQTT") + bytes((4, flags)) + keep_alive.to_bytes(2, "big") + payload)


def subscribe(packet_id: int, *filters: tuple[str, int]) -> bytes:
    body = b"".join(text(topic_filter) + bytes((qos,)) for topic_filter, qos in filters)
    return packet(0x82, packet_id.to_bytes(2, "big") + body)


def publish(topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, retain: bool = False) -> bytes:
    message = Outgoing(Publication(topic, payload, qos), retain=retain)
    return message.packet(qos, packet_id) if qos else message.frame()


class RawClient:
    """A TCP connection to a node, from the address `source`."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT, (source, 0))
        # Else what is sent just after an acknowledgement waits 40 ms for the node's TCP to acknowledge it.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _take(self, count: int) -> bytes | None:
        while len(self._buffer) < count:
            try:
                data = self.socket.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._buffer += data
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def receive(self) -> RawPacket | None:
        """The next packet, or None when the node has closed the connection. A node that does
        neither in time fails the test (TimeoutError)."""
        first = self._take(1)
        if first is None:
            return None
        length = shift = 0
        while True:
            byte = self._take(1)
            if byte is None:
                return None
            length |= (byte[0] & 127) << shift
            shift += 7
            if byte[0] < 128:
                break
        body = self._take(length)
        return None if body is None else RawPacket(first[0], body)

    def expect_any(self) -> RawPacket:
        """The next packet. Fails if there is none."""
        received = self.receive()
        assert received is not None, "connection closed"
        return received

    def expect(self, kind: int) -> RawPacket:
        """The next packet. Fails unless it is of this type."""
        received = self.receive()
        assert received is not None, f"connection closed, expected a packet of type {kind}"
        assert received.type == kind, f"expected a packet of type {kind}, got {received}"
        return received

    def login(
        self, client_id: str, user: str | None = None, password: str | None = None, **options: object
    ) -> bool:
        """CONNECT and the CONNACK; returns whether a session was present."""
        self.send(connect(client_id, user, password, **options))  # type: ignore[arg-type]
        answer = self.expect(2)
        assert answer.body[1] == 0, f"CONNACK {answer.body[1]}"
        return bool(answer.body[0])

    def message(self, *, acknowledge: bool = True) -> tuple[str, bytes, int, int]:
        """The next PUBLISH as (topic, payload, QoS, packet id), acknowledged if it has QoS 1."""
        received = self.expect(3)
        qos = received.first >> 1 & 3
        size = int.from_bytes(received.body[:2], "big")
        topic, rest = received.body[2 : 2 + size].decode(), received.body[2 + size :]
        if not qos:
            return topic, rest, 0, 0
        packet_id = int.from_bytes(rest[:2], "big")
        if qos == 1 and acknowledge:
            self.send(puback(packet_id))
        return topic, rest[2:], qos, packet_id

    def is_closed(self) -> bool:
        """Read until the node closes the connection (True) or sends a packet (False)."""
        return self.receive() is None
