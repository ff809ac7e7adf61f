"""Opens the ports of the section `listeners` of the configuration."""

import asyncio
import errno
import resource
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from broker.domain.arrival import Arrival
from broker.net.addresses import Addresses

Make = Callable[[Arrival | None], asyncio.Protocol]
"""Makes the protocol of a connection, given its arrival; None if it has not asked for a slot yet."""


class Listener(msgspec.Struct, frozen=True):
    """One listener. `type` is `tcp` or `ws`. `max_connections` 0 means no limit. `proxy_protocol`: each
    connection begins with a PROXY header (`proxied.py`)."""

    name: str
    type: str
    host: str
    port: int
    max_connections: int = 0
    proxy_protocol: bool = False


class ListenError(Exception):
    """A port could not be opened. The text names the listener and the reason."""


def highest_file(reserved: int) -> int:
    """The number that the file descriptors of clients must stay below, so that `reserved` are left for
    health, administration and the stores (at most a quarter of all)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 2**31
    return limit - min(reserved, limit // 4)


_LOOK_EVERY = 16
"""Only one connection of so many is asked for its file descriptor, see `file_of`."""
_NEAR = 1024
"""So near the highest file descriptor, each connection is asked."""


def file_of(stream: asyncio.BaseTransport | socket.socket) -> int:
    """The file descriptor of a connection. Finding out that of a transport takes as long as all else at the
    door."""
    if isinstance(stream, socket.socket):
        return stream.fileno()
    return int(stream.get_extra_info("socket").fileno())


class Slots:
    """Counts the connections of a port: at most `limit`, 0 for any number, and as many of one address as
    `addresses` allows. Their file descriptors stay below `highest_file`. `turn_away` is told why a connection
    is closed: `listener_full`, `open_files` or `address`."""

    __slots__ = ("_addresses", "_highest_file", "_limit", "_turn_away", "_unasked", "used")

    def __init__(
        self, limit: int, addresses: Addresses, highest_file: int, turn_away: Callable[[str], None]
    ) -> None:
        self._limit = limit
        self._addresses = addresses
        self._highest_file = highest_file
        self._turn_away = turn_away
        self._unasked = 0
        self.used = 0

    def begin(self, make: Make) -> asyncio.BaseProtocol:
        """The protocol with which a connection of this port begins."""
        return make(None)

    def welcome(self, transport: asyncio.BaseTransport, now: float) -> Arrival | None:
        """Count one more connection at `now`. None if it must be closed."""
        peer = transport.get_extra_info("peername") or ("", 0)
        return self.arrive(str(peer[0]), int(peer[1]), transport, now)

    def arrive(
        self, address: str, port: int, stream: asyncio.BaseTransport | socket.socket, now: float
    ) -> Arrival | None:
        """See `welcome`."""
        wait = self.take(address, stream, now)
        return None if wait is None else Arrival(address, port, wait)

    def take(self, address: str, stream: asyncio.BaseTransport | socket.socket, now: float) -> float | None:
        """Count one more connection, `stream` from `address` at `now`. Returns the seconds after which it may
        be read; or None if it must be closed."""
        if self._limit and self.used >= self._limit:
            self._turn_away("listener_full")
        elif self._is_last_file(stream):
            self._turn_away("open_files")
        elif (wait := self._addresses.enter(address, now)) is None:
            self._turn_away("address")
        else:
            self.used += 1
            return wait
        return None

    def _is_last_file(self, stream: asyncio.BaseTransport | socket.socket) -> bool:
        """The system gives out the lowest free number. So a high one says that all below are in use, by
        whatever part of the process."""
        if self._unasked:
            self._unasked -= 1
            return False
        number = file_of(stream)
        if number < self._highest_file - _NEAR:
            self._unasked = _LOOK_EVERY - 1
        return number >= self._highest_file

    def give_back(self, address: str) -> None:
        """A connection has ended."""
        self.used -= 1
        self._addresses.leave(address)


class Door(socket.socket):
    """A listening socket that accepts connections only while there are `slots`. It takes over `sock`.

    For servers that accept in Python and tell their protocol of a connection only after a handshake: who does
    not finish it has a slot, too."""

    def __init__(self, sock: socket.socket, slots: Slots) -> None:
        super().__init__(fileno=sock.detach())
        self._slots = slots
        self._arrivals: dict[int, tuple[Arrival, float]] = {}
        """File descriptor of a connection before its handshake -> who it is, and when it came."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises `ConnectionAbortedError` for a connection that was closed: the next may be accepted."""
        try:
            accepted, address = super().accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # others have used up all: try again
                raise BlockingIOError from None
            raise
        arrival = self._slots.arrive(str(address[0]), int(address[1]), accepted, time.monotonic())
        if arrival is None:
            accepted.close()
            raise ConnectionAbortedError
        return self.guest(accepted, arrival), address

    def guest(self, accepted: socket.socket, arrival: Arrival) -> socket.socket:
        """The socket of a connection that gives back its slot when it is closed."""
        file = accepted.fileno()
        self._arrivals[file] = arrival, time.monotonic()
        return _Guest(accepted, lambda: self._left(arrival.address, file))

    def arrival(self, file: int) -> Arrival:
        """Whose connection it is whose file descriptor this is, and how long it has to wait from now on. To
        be called once."""
        arrival, came = self._arrivals.pop(file)
        return arrival._replace(wait=max(came + arrival.wait - time.monotonic(), 0.0))

    def _left(self, host: str, file: int) -> None:
        self._arrivals.pop(file, None)
        self._slots.give_back(host)


class _Guest(socket.socket):
    """An accepted connection. It takes over `accepted`, and calls `left` when it is closed."""

    def __init__(self, accepted: socket.socket, left: Callable[[], None]) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._left: Callable[[], None] | None = left

    def close(self) -> None:
        super().close()
        if self._left is not None:
            self._left()
            self._left = None


def bind(listener: Listener) -> list[socket.socket]:
    """The bound sockets of a listener, one per address of its host. Port 0 takes a free port.

    Raises:
        ListenError: an address is not available.
    """
    try:
        addresses = socket.getaddrinfo(
            listener.host or None, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets = []
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Without V6ONLY the IPv6 socket would also take the IPv4 port, and the next bind would fail.
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.setblocking(False)
            sockets.append(sock)
    except OSError as error:
        place = f"listeners.{listener.name}.bind: cannot listen on {listener.host}:{listener.port}"
        raise ListenError(f"{place}: {error.strerror or error}") from error
    return sockets
