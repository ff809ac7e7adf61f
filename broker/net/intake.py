"""What a connection receives: bytes in, packets out, one by one in the order of arrival (MQTT 3.1.1, 4.6).

Some packets need to wait: a CONNECT for the authentication, a SUBSCRIBE for the store, the first PUBLISH to
a topic for the gate. Such a packet suspends the intake: the next packet is not taken until it is done. So
does a limit: a client that connects or publishes faster than it may is read from later (`hold`). So does
sending much at a time: until the client's next turn (`turns.py`).
"""

import asyncio
from collections.abc import Awaitable, Hashable
from typing import Protocol

from broker.domain.acting import acting_for
from broker.net.hub import Hub
from broker.net.outbox import ByteOutbox
from broker.net.transport import Transport
from broker.net.turns import VISIT_BYTES
from broker.wire.decoder import Decoder
from broker.wire.packets import Packet

_READ_AHEAD = 16 * 1024
_IN_OUTAGE = 16 * 1024
"""Uncommitted bytes of a client beyond which reading pauses while the store cannot commit."""

# Why the intake is suspended, as bits.
_STEP = 1  # a packet must be awaited
_HELD = 2  # a limit makes the client wait
_TURN = 4  # others have their turn first


class Consumer(Protocol):
    """The connection, which handles the packets."""

    outbox: ByteOutbox

    @property
    def uncommitted(self) -> int:
        """Bytes of publishes that wait for a commit."""
        ...

    def take(self, packet: Packet) -> None:
        """Handle a packet. It may raise anything, see `failed`."""
        ...

    def taken(self) -> None:
        """The packets that arrived together are handled, so far as they may be."""
        ...

    def failed(self, error: Exception) -> None:
        """A packet could not be read, or handling it has failed. Called where `error` is being handled."""
        ...

    def lost(self) -> None:
        """The transport is gone, and what came before that is handled."""
        ...


class Intake:
    """Reads from `transport` for a `consumer`. `address`: the client's; `max_packet`: see `Decoder`."""

    __slots__ = (
        "_consumer",
        "_decoder",
        "_hub",
        "_is_stopped",
        "_line",
        "_suspended",
        "_task",
        "_transport",
        "is_lost",
        "is_paused",
    )

    def __init__(
        self, hub: Hub, transport: Transport, consumer: Consumer, address: str, max_packet: int
    ) -> None:
        self._hub = hub
        self._transport = transport
        self._consumer = consumer
        self._decoder = Decoder(max_packet)
        self._line: Hashable = f"@{address}"
        """Whose turn it must be: the address's, then the user's."""
        self._suspended = 0
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.is_paused = False
        """Whether this side does not read what the client sends."""
        self.is_lost = False
        """Whether the transport is gone."""

    @property
    def packet(self) -> bytes:
        """The bytes of the packet that is being handled."""
        return self._decoder.packet

    def opened(self, line: Hashable, max_packet: int) -> None:
        """The client is authenticated: it waits for its turn in this line from now on."""
        self._line = line
        self._decoder.allow(max_packet)

    def stop(self) -> None:
        """Take no more packets."""
        self._is_stopped = True

    def end(self) -> bool:
        """The transport is gone. Returns whether packets that came before that still wait; if so, `lost` of
        the consumer is called when they are handled."""
        self.is_lost = True
        return self._suspended != 0

    # --- packets ---------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._decoder.feed(data)
        if not self._suspended:
            if self._line in self._hub.turns.lines:
                self._wait_for_turn()
            else:
                self._take_packets()
                if len(data) > VISIT_BYTES:
                    self._wait_for_turn()
        # What waits for a commit was looked at when it was published.
        if not self.is_paused and (
            (self._suspended and self._decoder.buffered > _READ_AHEAD) or self._consumer.outbox.is_overfull
        ):
            self.regulate()

    def _take_packets(self) -> None:
        next_packet, consumer = self._decoder.next_packet, self._consumer
        take = consumer.take
        try:
            for _ in self._hub.turns.packets:
                packet = next_packet()
                if packet is None:
                    break
                take(packet)
                if self._suspended or self._is_stopped:
                    break
            else:
                self._wait_for_turn()
        except Exception as error:
            consumer.failed(error)
        consumer.taken()

    # --- suspended -------------------------------------------------------------------

    def wait_for(self, step: Awaitable[None]) -> None:
        """Take the next packet when `step` is done."""
        self._suspended |= _STEP
        self._task = self._hub.loop.create_task(self._go_on_after(step))

    async def _go_on_after(self, step: Awaitable[None]) -> None:
        acting_for(str(self._line))
        try:
            await step
        except Exception as error:
            self._consumer.failed(error)
        finally:
            self._task = None
        self._go_on(_STEP)

    def hold(self, seconds: float) -> None:
        """Take the next packet after some time. What the client sends meanwhile is bounded by `regulate`."""
        self._suspended |= _HELD
        self._hub.loop.call_later(seconds, self._go_on, _HELD)

    def _wait_for_turn(self) -> None:
        if not self._suspended & _TURN and not self._is_stopped:
            self._suspended |= _TURN
            self._hub.turns.wait(self._line, self)

    def visit(self) -> None:
        """See `turns.Visited`."""
        self._go_on(_TURN)

    def _go_on(self, reason: int) -> None:
        """The reason for the suspension is gone."""
        self._suspended &= ~reason
        if self._suspended:
            return
        if not self._is_stopped:
            if self._decoder.buffered:
                self._take_packets()
            # Not before: what is buffered may suspend the intake again.
            if self.is_paused and not self._is_stopped:
                self.regulate()
        if self.is_lost and not self._suspended:
            self._consumer.lost()

    # --- the socket ------------------------------------------------------------------

    def regulate(self) -> None:
        """Pause or resume reading from the socket, so that memory stays bounded.

        Reading pauses when too many bytes wait for a commit, when packets queue (the intake is suspended, or
        this is called while they are handled), or when the client does not read its answers. It resumes at
        half the first limit, so that it does not flap."""
        if self.is_lost:
            return
        limit = self._hub.limits.uncommitted_bytes
        if self._hub.outage.is_on:
            # Nothing is committed now, so what all clients have sent must stay small. A client that waits for
            # its PUBACKs mostly stays below this, and its pings are still read.
            limit = min(limit, _IN_OUTAGE)
        should_pause = (
            self._consumer.uncommitted > (limit // 2 if self.is_paused else limit)
            or (self._decoder.buffered if self._suspended else self._decoder.unread) > _READ_AHEAD
            or self._consumer.outbox.is_overfull
        )
        if should_pause != self.is_paused:
            self.is_paused = should_pause
            if should_pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
