"""Outgoing bytes: collected during a turn of the event loop and written once at its end.

One system call then carries all packets of the turn.
"""

from collections.abc import Callable

from broker.net.budget import Budget
from broker.net.transport import Transport


class Flusher:
    """Writes each outbox that got bytes during this turn of the event loop, once.

    `call_soon` is the event loop's. `observer`, if given, is called with the owner of an outbox and the
    bytes written: always whole packets.
    """

    __slots__ = ("_call_soon", "_dirty", "_observer", "bytes_written")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        observer: Callable[[object, bytes], None] | None = None,
    ) -> None:
        self._call_soon = call_soon
        self._dirty: list[ByteOutbox] = []
        self._observer = observer
        self.bytes_written = 0

    def add(self, outbox: "ByteOutbox") -> None:
        """Flush the outbox at the end of this turn."""
        if not self._dirty:
            self._call_soon(self._flush)
        self._dirty.append(outbox)

    def _flush(self) -> None:
        dirty = self._dirty
        self._dirty = []
        for outbox in dirty:
            outbox.flush()

    def write(self, transport: Transport, data: bytes, owner: object) -> None:
        """Write bytes, count them, and call the observer."""
        self.bytes_written += len(data)
        if self._observer is not None:
            self._observer(owner, data)
        transport.write(data)


class ByteOutbox:
    """A connection's outgoing bytes, with a budget.

    `full` is True while more bytes than `budget` allows are collected here or wait in the transport;
    sessions then stop sending messages. `room_again` is called when `full` becomes False. The connection
    calls `drained` when the transport has drained. `owner` is passed to the flusher's observer.
    """

    __slots__ = (
        "_budget",
        "_chunks",
        "_flusher",
        "_held",
        "_owner",
        "_queued",
        "_room_again",
        "_size",
        "_transport",
        "full",
    )

    def __init__(
        self,
        transport: Transport,
        flusher: Flusher,
        budget: Budget,
        room_again: Callable[[], None],
        owner: object = None,
    ) -> None:
        self._transport: Transport | None = transport
        self._flusher = flusher
        self._budget = budget
        self._chunks: list[bytes] = []
        self._size = 0
        self._held = 0
        self._queued = 0
        self._room_again = room_again
        self._owner = owner
        self.full = False

    @property
    def queue_room(self) -> int:
        """See `session.roles.Outbox`. As for an outbox itself, it is as much as is left for all."""
        return self._budget.free

    def queued(self, size: int) -> None:
        """See `session.roles.Outbox`. They do not make the outbox full: they wait until it is not."""
        if self._transport is not None and size != self._queued:
            before, self._queued = self._queued, size
            self._budget.changed(self, self._held + before, self._held + size)

    @property
    def is_overfull(self) -> bool:
        """Whether the bytes exceed twice the budget. Messages wait while the outbox is full, but answers
        such as PUBACK do not: a client that does not read them must not be read from."""
        transport = self._transport
        return (
            self.full
            and transport is not None
            and self._size + transport.get_write_buffer_size() > 2 * self._budget.allowed
        )

    def send(self, data: bytes) -> None:
        """Append bytes to those of this turn. Does nothing after `close`."""
        chunks = self._chunks
        if not chunks:
            if self._transport is None:
                return
            self._flusher.add(self)
        chunks.append(data)
        self._size += len(data)
        if self._size > self._budget.allowed:
            self._fill(self._size)

    def send_publish(self, head: bytes, packet_id: bytes, payload: bytes) -> None:
        """`send` the three parts of a PUBLISH at once, without joining them for each receiver."""
        chunks = self._chunks
        if not chunks:
            if self._transport is None:
                return
            self._flusher.add(self)
        chunks += (head, packet_id, payload)
        self._size += len(head) + len(payload) + 2
        if self._size > self._budget.allowed:
            self._fill(self._size)

    def flush(self) -> None:
        """Write the collected bytes."""
        chunks, transport = self._chunks, self._transport
        if not chunks or transport is None:
            return
        self._chunks = []
        self._size = 0
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._flusher.write(transport, data, self._owner)
        self._measure(transport)

    def drained(self) -> None:
        """The transport accepts bytes again."""
        self.measure()

    def measure(self) -> None:
        """See `budget.Measured`."""
        if self._transport is not None:
            self._measure(self._transport)

    def _measure(self, transport: Transport) -> None:
        budget = self._budget
        held = self._size + transport.get_write_buffer_size()
        if held != self._held:
            before, self._held = self._held, held
            budget.changed(self, before + self._queued, held + self._queued)
        if held > budget.allowed:
            self._fill(held)
        elif self.full:
            self.full = False
            self._room_again()

    def _fill(self, held: int) -> None:
        if not self.full:
            self.full = True
            self._budget.filled(held)

    def close(self) -> None:
        """Write the collected bytes, then release the transport."""
        self.flush()
        self._transport = None
        if before := self._held + self._queued:
            self._held = self._queued = 0
            self._budget.changed(self, before, 0)
