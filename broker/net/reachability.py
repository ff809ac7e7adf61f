"""Clients whose network has died without a word: a cable pulled, a phone in a tunnel.

Their TCP connection stays open and silent. With a keep-alive, silence is noticed by and by; without one, or
with a long one, this side must ask. It is noticed within `unreachable_after` seconds or little more:

    nothing is on its way     the system's own TCP keepalive asks the client's system (`keep_asking`)
    bytes are on their way    the system sends them again and again, and asks nothing else; it would give up
                              after a quarter of an hour. `Reachability` looks how long ago the client's
                              system has acknowledged anything
    by way of a proxy         the proxy answers for the client. Over WebSocket the client is asked by a ping
                              (`websocket.WebSocketClient`); over TCP only the proxy can know

None of this asks anything of the client's program: its system answers, also for one that does not read. The
system's TCP_USER_TIMEOUT would not do: it ends also the connections of clients that are alive and slow.
"""

import contextlib
import fcntl
import math
import socket
import struct
import termios
from collections.abc import Collection
from typing import Protocol

import msgspec

REASON = "network timeout"
"""Why such a connection is closed."""

_LOOKS = 10
"""All connections are looked at so many times within `unreachable_after`."""

_TCP_RTO_MAX_MS = 44
"""The longest time until the system sends something again (linux/tcp.h). By default it is two minutes, also
for the probes that a client gets who does not read."""

_EMPTY = bytes(4)
# The beginning of struct tcp_info (linux/tcp.h).
_TCP_INFO = struct.Struct("8B13I")
_PROBES, _UNACKED, _LAST_DATA_RECEIVED, _LAST_ACK_RECEIVED = 3, 12, 19, 20


class Asking(msgspec.Struct, frozen=True):
    """TCP keepalive: a client that is silent for `idle` seconds is asked `count` times, and has `interval`
    seconds to answer each time."""

    idle: int
    interval: int
    count: int

    @classmethod
    def within(cls, seconds: float) -> "Asking":
        """A client that does not answer is given up after so many seconds (at least 3)."""
        count = 2
        interval = max(int(seconds / 5), 1)
        return cls(max(int(seconds) - count * interval, 1), interval, count)


class Reachable(Protocol):
    """A connection."""

    @property
    def file(self) -> int | None:
        """Its file descriptor; None if it has none any more."""
        ...

    @property
    def closed(self) -> bool: ...

    def close(self, reason: str) -> None: ...


class Reachability:
    """Closes connections whose client has acknowledged nothing for `seconds`, though it had to."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._rounds = max(int(seconds / _LOOKS), 1)
        self._left: list[Reachable] = []
        self._share = 0

    def tick(self, connections: Collection[Reachable]) -> None:
        """Look at some of the connections. To be called once a second."""
        if not self._left:
            self._left = list(connections)
            self._share = math.ceil(len(self._left) / self._rounds)
        looked_at = self._left[-self._share :]
        del self._left[-self._share :]
        for connection in looked_at:
            file = None if connection.closed else connection.file
            if file is not None and is_unreachable(file, self._seconds):
                connection.close(REASON)


def keep_asking(listening: socket.socket, seconds: float) -> None:
    """Ask the clients of a listening socket whether they are still there. The connections that it accepts
    inherit this."""
    asking = Asking.within(seconds)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, asking.idle)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, asking.interval)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, asking.count)
    with contextlib.suppress(OSError):  # before Linux 6.15
        most = min(max(int(seconds * 1000 / _LOOKS), 1000), 120_000)
        listening.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, most)


def is_unreachable(file: int, seconds: float) -> bool:
    """Whether bytes or a probe are on their way on a TCP connection, and nothing has come back for so
    long. False if the file is none any more."""
    try:
        if fcntl.ioctl(file, termios.TIOCOUTQ, _EMPTY) == _EMPTY:
            return False  # nothing is on its way, as mostly
        info = _tcp_info(file)
    except (OSError, ValueError):  # ValueError: it is -1, as a stream says that is being closed
        return False
    # A client that is alive and does not read acknowledges what is sent until its buffer is full, and then
    # answers the probes, which become rare. So silence alone says nothing.
    must_answer = info[_UNACKED] or info[_PROBES]
    silent_ms = min(info[_LAST_ACK_RECEIVED], info[_LAST_DATA_RECEIVED])
    return bool(must_answer) and silent_ms >= seconds * 1000


def _tcp_info(file: int) -> tuple[int, ...]:
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, fileno=file)
    try:
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    finally:
        borrowed.detach()
    return _TCP_INFO.unpack(info)
