"""Accepts the connections of gRPC's clients, and relays their bytes to gRPC's server.

    client --TCP--> _Front <-> _Back --Unix socket--> gRPC's server

gRPC's library accepts whatever comes, so that an address could have any number of connections. It listens on
a private Unix socket instead (`listening.PrivateSocket`), and only what has a slot gets there. Each side is
read only while the other one takes what came: a client that does not read holds `_HIGH_WATER` bytes here, and
the rest waits in gRPC, whose streams stop at their windows.
"""

import asyncio
import contextlib
import logging
import select
import socket
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from bridge.grpc_api.listening import PrivateSocket
from broker.domain.arrival import Arrival

logger = logging.getLogger(__name__)

_HIGH_WATER = 64 * 1024
_FLUSH_SECONDS = 5.0
"""How long the last bytes may take on their way to an end when the other one is gone."""
_STOP_SECONDS = 1.0
"""The same when the node stops."""
_LOOK_SECONDS = 1.0
"""How often the server's end is looked for while it is not read."""
_AGAIN = 0.01
"""Seconds until the next attempt to reach a server that has too many connections waiting."""
_ATTEMPTS = 500


class Slots(Protocol):
    """Counts the connections of an address, and how fast they come. See `broker.net.listeners.Slots`."""

    def begin(self, make: Callable[[Arrival | None], asyncio.Protocol]) -> asyncio.BaseProtocol: ...

    def welcome(self, transport: asyncio.BaseTransport, now: float) -> Arrival | None: ...

    def give_back(self, address: str) -> None: ...


def name_of(host: str, port: int) -> str:
    """gRPC's name of a client, such as `ipv4:192.0.2.1:5000` or `ipv6:[::1]:5000`."""
    host = host.removeprefix("::ffff:") if "." in host else host
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"


class Relay:
    """Relays what comes to `sockets` to a server on `inside`. A connection without one of the `slots` is
    closed."""

    def __init__(self, sockets: Sequence[socket.socket], inside: PrivateSocket, slots: Slots) -> None:
        self._sockets = sockets
        self.inside = inside
        self.slots = slots
        self.fronts: set[_Front] = set()
        self._servers: list[asyncio.Server] = []
        self._empty = asyncio.Event()

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self._sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Accept connections from now on."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            self._servers.append(await loop.create_server(self._begin, sock=sock))

    def _begin(self) -> asyncio.BaseProtocol:
        return self.slots.begin(lambda arrival: _Front(self, arrival))

    def stop_accepting(self) -> None:
        """Close the ports. What is connected stays."""
        for server in self._servers:
            server.close()

    def left(self, front: "_Front") -> None:
        """A client has gone."""
        self.fronts.discard(front)
        if not self.fronts:
            self._empty.set()

    async def close(self) -> None:
        """The server has ended. Wait up to `_STOP_SECONDS` for its last bytes to reach the clients."""
        for front in tuple(self.fronts):
            front.end()
        if self.fronts:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), _STOP_SECONDS)
        for front in tuple(self.fronts):
            front.abort()
        self.inside.close()


class _End(asyncio.Protocol):
    """One end of a connection. What it receives goes to the `other`."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End
        self._flush_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        if (transport := self.other.transport) is not None:
            transport.write(data)

    def pause_writing(self) -> None:
        if (transport := self.other.transport) is not None and not transport.is_closing():
            transport.pause_reading()

    def resume_writing(self) -> None:
        if (transport := self.other.transport) is not None and not transport.is_closing():
            transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        self.other.end()

    def end(self) -> None:
        """Close this end when it has got what was written to it, which may not take for ever."""
        if self.transport is not None:
            self.hurry()
            self.transport.close()

    def hurry(self) -> None:
        """What is written to this end may take `_FLUSH_SECONDS` from now on."""
        if self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.abort)

    def abort(self) -> None:
        """Close this end at once."""
        if self.transport is not None:
            self.transport.abort()


class _Back(_End):
    """The end at gRPC's server."""

    def __init__(self, front: "_Front") -> None:
        super().__init__()
        self.other = self._front = front

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._front.opened(cast("asyncio.Transport", transport))

    @property
    def is_hung_up(self) -> bool:
        """Whether the server has closed, even if it is not read now."""
        if self.transport is None:
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))


class _Front(_End):
    """The end at the client."""

    def __init__(self, relay: Relay, arrival: Arrival | None) -> None:
        super().__init__()
        self.other = self._back = _Back(self)
        self._relay = relay
        self._arrival = arrival
        self._early: list[bytes] = []
        self._opening: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._address: str | None = None
        """That of a client with a slot."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        arrival = self._arrival or self._relay.slots.welcome(transport, loop.time())
        if arrival is None:
            self.abort()
            return
        self._address = arrival.address
        self._relay.fronts.add(self)
        self._opening = loop.create_task(self._open(name_of(arrival.address, arrival.port), arrival.wait))

    async def _open(self, client: str, wait: float) -> None:
        """Connect to the server, after so many seconds."""
        await asyncio.sleep(wait)
        try:
            sock = await self._reach(client)
            await asyncio.get_running_loop().create_unix_connection(lambda: self._back, sock=sock)
        except OSError as error:
            about = {"client": "", "reason": "gRPC relay"}
            logger.warning("a gRPC connection is refused: %s", error.strerror or error, extra=about)
            self.abort()
            return

    def opened(self, back: asyncio.Transport) -> None:
        """The other end is there."""
        if self.transport is None:
            back.abort()
            return
        self.transport.resume_reading()
        for data in self._early:
            back.write(data)
        self._early.clear()

    async def _reach(self, client: str) -> socket.socket:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(BlockingIOError):
                return self._relay.inside.connect(client)
            await asyncio.sleep(_AGAIN)
        raise OSError("the server takes no connections")

    def data_received(self, data: bytes) -> None:
        if self._back.transport is not None:
            self._back.transport.write(data)
        elif self.transport is not None:
            # Not earlier: in `connection_made` some versions of Python take no notice of it.
            self.transport.pause_reading()
            self._early.append(data)

    def eof_received(self) -> bool:
        """The client sends nothing more, but may read. gRPC's server, when it does so, has closed."""
        transport = self._back.transport
        if transport is None or transport.is_closing():
            return False
        transport.write_eof()
        return True

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_later()

    def resume_writing(self) -> None:
        self._stop_looking()
        super().resume_writing()

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        """While the client does not read, neither is the server read, so its end must be looked for: else a
        client whose network has died would stay."""
        self._looking = None
        if self._back.is_hung_up:
            self.hurry()
        else:
            self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_looking()
        if self._opening is not None:
            self._opening.cancel()
        if self._address is not None:
            self._relay.slots.give_back(self._address)
            self._relay.left(self)
        super().connection_lost(exc)
