"""Slots of a server (`bridge.grpc_api.relay.Slots`, `bridge.http_api.server.Slots`) without a broker."""

import asyncio
from collections.abc import Callable

from broker.domain.arrival import Arrival


class Slots:
    """Each connection waits for the next of `waits`; None: it is closed. No limits when they are used up."""

    def __init__(self) -> None:
        self.waits: list[float | None] = []
        self.used = 0
        self.empty = asyncio.Event()

    def begin(self, make: Callable[[Arrival | None], asyncio.Protocol]) -> asyncio.BaseProtocol:
        return make(None)

    def welcome(self, transport: asyncio.BaseTransport, _now: float) -> Arrival | None:
        wait = self.waits.pop(0) if self.waits else 0.0
        self.used += wait is not None
        return None if wait is None else Arrival(*transport.get_extra_info("peername")[:2], wait)

    def give_back(self, address: str) -> None:
        assert address == "127.0.0.1"
        self.used -= 1
        if not self.used:
            self.empty.set()
