"""Opens the ports of the section `listeners` of the configuration."""

import socket

import msgspec


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
    """Counts the connections of a listener."""

    __slots__ = ("_limit", "used")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    def take(self) -> bool:
        """Count one more connection if the limit allows it; returns whether it does."""
        if self._limit and self.used >= self._limit:
            return False
        self.used += 1
        return True

    def give_back(self) -> None:
        """A connection has ended."""
        self.used -= 1


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
