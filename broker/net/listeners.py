"""Opens the ports of the section `listeners` of the configuration."""

import asyncio
import errno
import resource
import socket
from collections.abc import Callable
from typing import Any

import msgspec

from broker.net.addresses import Addresses


class Listener(msgspec.Struct, frozen=True):
    """One listener. `type` is `tcp` or `ws`. `max_connections` 0 means no limit."""

    name: str
    type: str
    host: str
    port: int
    max_connections: int = 0


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


class NoRoomError(Exception):
    """A connection must be closed. The text is the reason, as it is counted."""


def file_of(stream: asyncio.BaseTransport) -> int:
    """The file descriptor of a transport. Finding it out takes as long as all else at the door."""
    return int(stream.get_extra_info("socket").fileno())


class Slots:
    """Counts the connections of a listener: at most `limit`, 0 for any number, and as many of one address
    as `addresses` allows. Their file descriptors stay below `highest_file`."""

    __slots__ = ("_addresses", "_highest_file", "_limit", "_unasked", "used")

    def __init__(self, limit: int, addresses: Addresses, highest_file: int) -> None:
        self._limit = limit
        self._addresses = addresses
        self._highest_file = highest_file
        self._unasked = 0
        self.used = 0

    def take(self, address: str, stream: asyncio.BaseTransport, now: float) -> float:
        """Count one more connection, `stream` from `address` at `now`. Returns the seconds after which
        its CONNECT may be read.

        The system gives out the lowest free number. So a high one says that all below are in use, by
        whatever part of the process.

        Raises:
            NoRoomError: a limit forbids the connection: `listener_full`, `open_files` or `address`.
        """
        if self._limit and self.used >= self._limit:
            raise NoRoomError("listener_full")
        if self._unasked:
            self._unasked -= 1
        else:
            number = file_of(stream)
            if number >= self._highest_file:
                raise NoRoomError("open_files")
            if number < self._highest_file - _NEAR:
                self._unasked = _LOOK_EVERY - 1
        wait = self._addresses.enter(address, now)
        if wait is None:
            raise NoRoomError("address")
        self.used += 1
        return wait

    def give_back(self, address: str) -> None:
        """A connection has ended."""
        self.used -= 1
        self._addresses.leave(address)


class Door(socket.socket):
    """A listening socket that accepts no connection whose file descriptor is not below `highest_file`. It
    takes over `sock`. `turn_away` is told of each connection that is closed.

    For servers that accept in Python and tell their protocol of a connection only after a handshake."""

    def __init__(self, sock: socket.socket, highest_file: int, turn_away: Callable[[str], None]) -> None:
        super().__init__(fileno=sock.detach())
        self._highest_file = highest_file
        self._turn_away = turn_away

    def accept(self) -> tuple[socket.socket, Any]:
        """Raises `ConnectionAbortedError` for a connection that was closed: the next may be accepted."""
        try:
            connection, address = super().accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # others have used up all: try again
                raise BlockingIOError from None
            raise
        if connection.fileno() >= self._highest_file:
            connection.close()
            self._turn_away("open_files")
            raise ConnectionAbortedError
        return connection, address


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
