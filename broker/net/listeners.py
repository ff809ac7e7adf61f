"""Opens the ports of the section `listeners` of the configuration."""

import socket

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


class Slots:
    """Counts the connections of a listener: at most `limit`, 0 for any number, and as many of one address
    as `addresses` allows."""

    __slots__ = ("_addresses", "_limit", "used")

    def __init__(self, limit: int, addresses: Addresses) -> None:
        self._limit = limit
        self._addresses = addresses
        self.used = 0

    def take(self, address: str, now: float) -> float | None:
        """Count one more connection, from `address` at `now`. Returns the seconds after which its CONNECT
        may be read; or None if a limit forbids the connection, which must then be closed."""
        if self._limit and self.used >= self._limit:
            return None
        wait = self._addresses.enter(address, now)
        if wait is not None:
            self.used += 1
        return wait

    def give_back(self, address: str) -> None:
        """A connection has ended."""
        self.used -= 1
        self._addresses.leave(address)


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
        place = f"listeners.{listener.name}: cannot listen on {listener.host}:{listener.port}"
        raise ListenError(f"{place}: {error.strerror or error}") from error
    return sockets
