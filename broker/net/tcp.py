"""MQTT over TCP."""

import asyncio
from typing import cast

from broker.domain.arrival import Arrival
from broker.net.budget import LEAST
from broker.net.connection import Connection
from broker.net.hub import Hub
from broker.net.listeners import Slots

HIGH_WATER = LEAST
"""The high-water mark of a transport's buffer in bytes: above it, the transport reports that it drained. An
outbox is never full with less."""


class TcpProtocol(asyncio.Protocol):
    """Connects an asyncio transport with a `Connection`."""

    __slots__ = ("_arrival", "_connection", "_hub", "_slots")

    def __init__(self, hub: Hub, slots: Slots, arrival: Arrival | None = None) -> None:
        """`arrival`: of a connection that has one of the `slots` already."""
        self._hub = hub
        self._slots = slots
        self._arrival = arrival
        self._connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        wait: float | None
        if self._arrival is not None:
            address, port, wait = self._arrival
        else:  # as `Slots.welcome`, without a tuple for each connection
            peer = stream.get_extra_info("peername") or ("", 0)
            address, port = str(peer[0]), int(peer[1])
            wait = self._slots.take(address, stream, self._hub.loop.time())
        if wait is None:
            stream.abort()
            return
        # At most the budget: a full outbox must be told when the transport has drained.
        stream.set_write_buffer_limits(high=min(HIGH_WATER, self._hub.limits.outbox_bytes))
        self._connection = Connection(self._hub, stream, (address, port), stream, wait)

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.received(data)

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.outbox.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connection is not None:
            self._connection.lost()
            self._slots.give_back(self._connection.peer[0])
            self._connection = None
