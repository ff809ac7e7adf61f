"""MQTT 3.1.1 frames for the load generator: built in advance to send, counted on arrival.

Sans-IO. The generator shares a small machine with the broker it measures, so the work per message is done
in C: outgoing frames are slices of a block built in advance, and a run of incoming frames of equal size is
checked, counted and acknowledged with strided slices.
"""

from dataclasses import dataclass, field

CONNACK = 0x20
PUBLISH = 0x30
PUBACK = 0x40
SUBACK = 0x90
DISCONNECT_FRAME = b"\xe0\x00"

PAYLOAD_BYTES = 100
KEEP_ALIVE_SECONDS = 60
# More than any window, so an id is free again long before it is reused [MQTT-2.3.1-2].
PACKET_IDS = 1000
# The most frames that one strided check covers. It bounds the cost when frame sizes alternate.
MAX_RUN = 256


def connect(
    client_id: str, username: str | None = None, password: str | None = None, *, clean: bool = True
) -> bytes:
    """CONNECT (MQTT 3.1.1, 3.1) without a will."""
    flags = 0x02 if clean else 0
    payload = _text(client_id)
    if username is not None:
        flags |= 0x80
        payload += _text(username)
    if password is not None:
        flags |= 0x40
        payload += _text(password)
    head = _text("MQTT") + bytes((4, flags)) + KEEP_ALIVE_SECONDS.to_bytes(2, "big")
    return _frame(0x10, head + payload)


def subscribe(topic: str, qos: int) -> bytes:
    """SUBSCRIBE (MQTT 3.1.1, 3.8) to one topic filter, with packet id 1."""
    return _frame(0x82, b"\x00\x01" + _text(topic) + bytes((qos,)))


def unsubscribe(topic: str) -> bytes:
    """UNSUBSCRIBE (MQTT 3.1.1, 3.10) from one topic filter, with packet id 1."""
    return _frame(0xA2, b"\x00\x01" + _text(topic))


def publish(topic: str, payload: bytes, qos: int, packet_id: int, *, retain: bool = False) -> bytes:
    """PUBLISH (MQTT 3.1.1, 3.3). At QoS 0 `packet_id` is left out."""
    identifier = packet_id.to_bytes(2, "big") if qos else b""
    return _frame(PUBLISH | qos << 1 | retain, _text(topic) + identifier + payload)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _frame(first: int, body: bytes) -> bytes:
    head = bytearray((first,))
    remaining = len(body)
    while True:
        remaining, digit = divmod(remaining, 128)
        head.append(digit | 0x80 if remaining else digit)
        if not remaining:
            return bytes(head) + body


@dataclass(frozen=True, slots=True)
class Block:
    """`count` PUBLISH frames of `frame_bytes` bytes each, one after the other. Reading wraps around."""

    data: bytes
    frame_bytes: int

    @property
    def count(self) -> int:
        return len(self.data) // self.frame_bytes

    def cut(self, start: int, count: int) -> bytes:
        """`count` frames from number `start` on."""
        first = start % self.count
        whole = self.data[first * self.frame_bytes : (first + count) * self.frame_bytes]
        missing = count - len(whole) // self.frame_bytes
        return whole + self.cut(0, missing) if missing else whole


def plain_block(topic: str, qos: int) -> Block:
    """PACKET_IDS frames with the same payload and, at QoS 1, the packet ids 1 to PACKET_IDS."""
    payload = b"x" * PAYLOAD_BYTES
    frames = [publish(topic, payload, qos, number + 1) for number in range(PACKET_IDS)]
    return Block(b"".join(frames), len(frames[0]))


def message_block(topic: str, count: int, prefix: str) -> Block:
    """`count` QoS 1 frames, each a JSON message with a `client_msg_id` of its own.

    `prefix` (8 characters) must be new for every block, because idempotency keys are unique for all time.
    """
    head, middle, tail = b'{"content":"', b'","client_msg_id":"', b'"}'
    identifiers = (f"{prefix}{number:08}".encode() for number in range(count))
    content = b"x" * (PAYLOAD_BYTES - len(head + middle + tail) - len(prefix) - 8)
    frames = [
        publish(topic, head + content + middle + identifier + tail, 1, number % PACKET_IDS + 1)
        for number, identifier in enumerate(identifiers)
    ]
    return Block(b"".join(frames), len(frames[0]))


@dataclass(slots=True)
class FrameCounter:
    """Counts the frames in a received byte stream and answers QoS 1 deliveries.

    `publishes` and `pubacks` are totals since the start. `control` holds all other frames (CONNACK, SUBACK)
    in the order of arrival; the caller removes them.
    """

    publishes: int = 0
    pubacks: int = 0
    control: list[bytes] = field(default_factory=list)
    _tail: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the stream. Returns the PUBACK frames to send for them."""
        buffer = self._tail + data if self._tail else data
        replies: list[bytes] = []
        position = 0
        while True:
            body, end = _bounds(buffer, position)
            if end == 0 or end > len(buffer):
                break
            position = self._take_run(buffer, position, body, end, replies)
        self._tail = buffer[position:]
        return b"".join(replies)

    def _take_run(self, buffer: bytes, start: int, body: int, end: int, replies: list[bytes]) -> int:
        """Count the frame at `start` and those after it with an equal head. Returns where they end."""
        first = buffer[start]
        size = end - start
        kind = first & 0xF0
        if kind == PUBLISH:
            # The head includes the topic's length, which determines the position of the packet id.
            count = _run_length(buffer, start, size, body + 2 - start)
            self.publishes += count
            if first & 0x06:
                topic = int.from_bytes(buffer[body : body + 2], "big")
                replies.append(_pubacks(buffer, start, size, count, body + 2 + topic - start))
        elif kind == PUBACK:
            count = _run_length(buffer, start, size, body - start)
            self.pubacks += count
        else:
            count = 1
            self.control.append(buffer[start:end])
        return start + count * size


def _bounds(buffer: bytes, start: int) -> tuple[int, int]:
    """The positions of the body and the end of the frame at `start`; (0, 0) if its head is incomplete."""
    length = shift = 0
    for position in range(start + 1, min(start + 5, len(buffer))):
        digit = buffer[position]
        length |= (digit & 0x7F) << shift
        if digit < 0x80:
            return position + 1, position + 1 + length
        shift += 7
    return 0, 0


def _run_length(buffer: bytes, start: int, size: int, head: int) -> int:
    """The number of frames from `start` on that repeat the first `head` bytes of the first one.

    An equal head means an equal size. So frame n + 1 begins where frame n must end, each step lands on a true
    frame boundary, and the count is exact.
    """
    run = min((len(buffer) - start) // size, MAX_RUN)
    for offset in range(start, start + head):
        column = buffer[offset : start + run * size : size]
        run -= len(column.lstrip(column[:1]))
    return run


def _pubacks(buffer: bytes, start: int, size: int, count: int, packet_id: int) -> bytes:
    """PUBACKs for `count` frames of `size` bytes, with the packet id at byte `packet_id` of each."""
    stop = start + count * size
    acks = bytearray(b"\x40\x02\x00\x00" * count)
    acks[2::4] = buffer[start + packet_id : stop : size]
    acks[3::4] = buffer[start + packet_id + 1 : stop : size]
    return bytes(acks)
