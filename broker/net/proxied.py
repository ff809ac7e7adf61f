"""Ports behind a proxy that begins each connection with a PROXY header.

Until the header has come, a connection has a slot as one of the proxy's own. Then it becomes the client's:
limits of an address, logs and wrong passwords know the client. After its header nothing stands between the
socket and the protocol.

BehindProxy   the slots of such a port; servers with protocols of asyncio get the header from `begin`
ProxiedDoor   for servers that accept in Python
"""

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from broker.domain.arrival import Arrival
from broker.net.addresses import Addresses
from broker.net.listeners import Door, Make, Slots
from broker.net.proxy_header import Found, HeaderReader, ProxyHeaderError

logger = logging.getLogger(__name__)

_MOST_ACCEPTED = 100
"""Connections in one turn of the event loop."""


class BehindProxy(Slots):
    """See `Slots`. Only the trusted proxies may connect, and each connection has `seconds` for its header."""

    __slots__ = ("_refuse", "seconds")

    def __init__(
        self,
        limit: int,
        addresses: Addresses,
        highest_file: int,
        turn_away: Callable[[str], None],
        refuse: Callable[[str], None],
        seconds: float,
    ) -> None:
        """`refuse` counts a connection by the reason: `proxy_untrusted` or `proxy_header`."""
        super().__init__(limit, addresses, highest_file, turn_away)
        self._refuse = refuse
        self.seconds = seconds

    def begin(self, make: Make) -> asyncio.BaseProtocol:
        return _Head(self, make)

    def refuse_header(self, address: str, why: str) -> None:
        """A connection from `address` is closed without a header."""
        self._refuse("proxy_header")
        logger.warning("a connection from %s is refused: %s", address, why, extra=_about("proxy_header"))

    def is_trusted(self, address: str) -> bool:
        """Whether an address is a trusted proxy's. If not, that is counted and logged."""
        if self._addresses.is_proxy(address):
            return True
        self._refuse("proxy_untrusted")
        about = _about("proxy_untrusted")
        logger.warning("a connection is refused: %s is none of node.trusted_proxies", address, extra=about)
        return False

    def known(self, proxy: Arrival, found: Found, now: float) -> Arrival | None:
        """The header of a connection from `proxy` has come. Returns the client; or None if the connection
        must be closed, and then its slot is given back."""
        if found.source is None:
            return proxy
        self._addresses.leave(proxy.address)
        wait = self._addresses.enter(found.source.address, now)
        if wait is None:
            self.used -= 1
            self._turn_away("address")
            return None
        return Arrival(*found.source, wait)


def _about(reason: str) -> dict[str, str]:
    """Lines of all addresses are summed up together."""
    return {"client": "", "reason": reason}


class _Head(asyncio.Protocol):
    """A connection until its header has come. Then `make` has a protocol for it."""

    def __init__(self, slots: BehindProxy, make: Make) -> None:
        self._slots = slots
        self._make = make
        self._reader = HeaderReader()
        self._transport: asyncio.Transport
        self._proxy: Arrival | None = None
        """The proxy, while the connection has a slot as one of its own."""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        loop = asyncio.get_running_loop()
        address = str((transport.get_extra_info("peername") or ("",))[0])
        if self._slots.is_trusted(address):
            self._proxy = self._slots.welcome(transport, loop.time())
        if self._proxy is None:
            self._transport.abort()
        else:
            self._timer = loop.call_later(self._slots.seconds, self._too_late)

    def data_received(self, data: bytes) -> None:
        proxy = self._proxy
        if proxy is None:
            return
        try:
            found = self._reader.feed(data)
        except ProxyHeaderError as error:
            self._refuse(proxy, str(error))
            return
        if found is not None:
            self._go_on(proxy, found)

    def _go_on(self, proxy: Arrival, found: Found) -> None:
        self._end()
        client = self._slots.known(proxy, found, asyncio.get_running_loop().time())
        if client is None:
            self._transport.abort()
            return
        protocol = self._make(client)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if found.rest:
            protocol.data_received(found.rest)

    def _too_late(self) -> None:
        if self._proxy is not None:
            self._refuse(self._proxy, f"no PROXY header within {self._slots.seconds:g} s")

    def _refuse(self, proxy: Arrival, why: str) -> None:
        self._end()
        self._slots.give_back(proxy.address)
        self._slots.refuse_header(proxy.address, why)
        self._transport.abort()

    def _end(self) -> None:
        self._proxy = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        proxy = self._proxy
        self._end()
        if proxy is None:
            return
        self._slots.give_back(proxy.address)
        if not self._reader.is_empty:  # else somebody has asked whether the port is open
            self._slots.refuse_header(proxy.address, "it ended within its PROXY header")


class ProxiedDoor(Door):
    """A `Door` that opens for a connection when its header has come.

    The server waits for a bell in place of the listening socket. Bytes of a header are looked at before they
    are taken, so that those after it stay in the socket, for the server."""

    def __init__(self, sock: socket.socket, slots: BehindProxy, loop: asyncio.AbstractEventLoop) -> None:
        bell, self._rope = socket.socketpair()
        bell.setblocking(False)
        self._rope.setblocking(False)
        super().__init__(bell, slots)
        self._port = sock
        self._behind = slots
        self._loop = loop
        self._entering: set[_Entering] = set()
        self._ready: deque[tuple[socket.socket, Arrival]] = deque()

    def listen(self, backlog: int = 128, /) -> None:
        self._port.listen(backlog)
        self._loop.add_reader(self._port.fileno(), self._accept)

    def getsockname(self) -> Any:
        return self._port.getsockname()

    def _accept(self) -> None:
        for _ in range(_MOST_ACCEPTED):
            try:
                accepted, address = self._port.accept()
            except OSError:  # there is none now, or no file for it
                return
            accepted.setblocking(False)
            host = str(address[0])
            proxy = None
            if self._behind.is_trusted(host):
                proxy = self._behind.arrive(host, int(address[1]), accepted, self._loop.time())
            if proxy is None:
                accepted.close()
            else:
                self._entering.add(_Entering(accepted, proxy, self._behind, self._loop, self._entered))

    def _entered(self, entering: "_Entering", client: Arrival | None) -> None:
        self._entering.discard(entering)
        if client is not None:
            self._ready.append((entering.sock, client))
            self._rope.send(b"\0")

    def accept(self) -> tuple[socket.socket, Any]:
        """A connection whose header has come. Raises `BlockingIOError` if there is none."""
        if not self._ready:
            self.recv(_MOST_ACCEPTED)  # raises BlockingIOError when the bell is still
            raise BlockingIOError
        sock, client = self._ready.popleft()
        return self.guest(sock, client), (client.address, client.port)

    def close(self) -> None:
        if self._port.fileno() != -1:
            self._loop.remove_reader(self._port.fileno())
        self._port.close()
        self._rope.close()
        for entering in tuple(self._entering):
            entering.close()
        while self._ready:
            sock, client = self._ready.popleft()
            self._behind.give_back(client.address)
            sock.close()
        super().close()


class _Entering:
    """An accepted socket whose header has not come yet. `done` gets the client, or None if it was closed."""

    def __init__(
        self,
        sock: socket.socket,
        proxy: Arrival,
        slots: BehindProxy,
        loop: asyncio.AbstractEventLoop,
        done: Callable[["_Entering", Arrival | None], None],
    ) -> None:
        self.sock = sock
        self._proxy = proxy
        self._slots = slots
        self._loop = loop
        self._done = done
        self._reader = HeaderReader()
        self._timer = loop.call_later(slots.seconds, self._too_late)
        loop.add_reader(sock.fileno(), self._read)

    def _read(self) -> None:
        try:
            found = self._look()
        except (BlockingIOError, InterruptedError):
            return
        except ProxyHeaderError as error:
            self._refuse(str(error))
        except OSError:
            self.close()
        else:
            if found is not None:
                self._stop_reading()
                client = self._slots.known(self._proxy, found, self._loop.time())
                if client is None:
                    self.sock.close()
                self._done(self, client)

    def _look(self) -> Found | None:
        """Take what belongs to the header, and leave the rest."""
        data = self.sock.recv(4096, socket.MSG_PEEK)
        if not data:
            if self._reader.is_empty:  # somebody has asked whether the port is open
                raise OSError("the connection has ended")
            raise ProxyHeaderError("it ended within its PROXY header")
        found = self._reader.feed(data)
        self.sock.recv(len(data) - (len(found.rest) if found else 0))
        return found

    def _too_late(self) -> None:
        self._refuse(f"no PROXY header within {self._slots.seconds:g} s")

    def _refuse(self, why: str) -> None:
        self._slots.refuse_header(self._proxy.address, why)
        self.close()

    def close(self) -> None:
        """The connection ends without a client."""
        self._stop_reading()
        self._slots.give_back(self._proxy.address)
        self.sock.close()
        self._done(self, None)

    def _stop_reading(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self.sock.fileno())
