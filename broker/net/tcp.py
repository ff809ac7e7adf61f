"""MQTT over TCP."""

import asyncio
from typing import cast

from broker.net.connection import Connection
from broker.net.hub import Hub
from broker.net.listeners import Slots

HIGH_WATER = 64 * 1024
"""The high-water mark of a transport's buffer in bytes: above it, the transport reports that it drained."""


class TcpProtocol(asyncio.Protocol):
    """Connects an asyncio transport with a `Connection`."""

    __slots__ = ("_connection", "_hub", "_slots")

    def __init__(self, hub: Hub, slots: Slots) -> None:
        self._hub = hub
        self._slots = slots
        self._connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        if no_room := self._slots.take(stream.get_extra_info("socket").fileno()):
            self._hub.turn_away(no_room)
            stream.abort()
            return
        # At most the budget: a full outbox must be told when the transport has drained.
        stream.set_write_buffer_limits(high=min(HIGH_WATER, self._hub.limits.outbox_bytes))
        peer = stream.get_extra_info("peername") or ("", 0)
        self._connection = Connection(self._hub, stream, (str(peer[0]), int(peer[1])))

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.received(data)

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.outbox.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._connection.lost()
            self._connection = None
            self._slots.give_back()
