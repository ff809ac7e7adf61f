"""The node's HTTP server: uvicorn in the node's own event loop."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.domain.arrival import Arrival

MAX_HEAD = 16 * 1024
"""Most bytes of a request's line and headers."""
HEAD_SECONDS = 10.0
"""Within which they must arrive."""
STOP_SECONDS = 2
"""How long requests under way may take when the server stops."""


class Slots(Protocol):
    """Counts the connections of an address, and how fast they come. See `broker.net.listeners.Slots`."""

    def begin(self, make: Callable[[Arrival | None], asyncio.Protocol]) -> asyncio.BaseProtocol: ...

    def welcome(self, transport: asyncio.BaseTransport, now: float) -> Arrival | None: ...

    def give_back(self, address: str) -> None: ...


class Server:
    """A running server that listens on `host:port`."""

    def __init__(self, server: "_Uvicorn", serving: asyncio.Task[None], host: str, port: int) -> None:
        self._server = server
        self._serving = serving
        self.host = host
        self.port = port

    @property
    def address(self) -> str:
        """The address for clients: `host:port`."""
        return f"{self.host}:{self.port}"

    async def stop(self) -> None:
        """Accept no more requests, wait up to `STOP_SECONDS` for those under way, then cancel them."""
        self._server.end()
        await self._serving


async def start(application: ASGIApp, bind: str, trusted_proxies: Sequence[str], slots: Slots) -> Server:
    """Serve on `bind` ("host:port"; port 0 takes a free one). `trusted_proxies` are the addresses and
    networks whose `X-Forwarded-For` is believed. A connection without one of the `slots` is closed.

    Raises:
        OSError: the address cannot be listened on; the text says why.
    """
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    sock = _listen(bind)

    def begin(**options: Any) -> asyncio.BaseProtocol:
        return slots.begin(lambda arrival: _Protocol(slots, arrival, **options))

    config = uvicorn.Config(
        application,
        http=begin,  # type: ignore[arg-type]  # called like a class
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD,
    )
    server = _Uvicorn(config)
    serving = asyncio.create_task(server.serve([sock]))
    await server.is_up.wait()
    return Server(server, serving, bind.rpartition(":")[0], sock.getsockname()[1])


def _listen(bind: str) -> socket.socket:
    host, _, port = bind.rpartition(":")
    failed = f"http.bind: cannot listen on {bind}"
    if not host or not port.isdecimal() or int(port) > 65535:
        raise OSError(f"{failed}: not of the form host:port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen()
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise OSError(f"{failed}: {error.strerror or error}") from error
    sock.setblocking(False)
    return sock


class _Uvicorn(uvicorn.Server):
    """uvicorn inside the node's process: it leaves the signals to the node."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self) -> None:
        """Begin to shut down."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


class _Protocol(H11Protocol):
    """A connection with a time limit for each request's head, which uvicorn does not have. Without it a
    client could hold connections by sending a byte now and then."""

    _timer: asyncio.TimerHandle | None = None

    def __init__(self, slots: Slots, arrival: Arrival | None, **options: Any) -> None:
        super().__init__(**options)
        self._slots = slots
        self._arrival = arrival
        self._address: str | None = None
        """That of a client with a slot."""
        self._early: bytes | None = None
        """What a client that came too fast has sent before it may be read; None for others."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        arrival = self._arrival or self._slots.welcome(transport, self.loop.time())
        if arrival is None:
            transport.abort()
            return
        self._address = arrival.address
        self.client = (arrival.address, arrival.port)
        if arrival.wait:
            self._early = b""
            self._timer = self.loop.call_later(arrival.wait, self._begin)
        else:
            self._time_the_head()

    def _begin(self) -> None:
        """The wait is over of a client that came too fast."""
        early, self._early, self._timer = self._early, None, None
        self.transport.resume_reading()
        if early:
            self.data_received(early)
        else:
            self._time_the_head()

    def data_received(self, data: bytes) -> None:
        if self._early is not None:
            # Not earlier: in `connection_made` some versions of Python take no notice of it.
            self.transport.pause_reading()
            self._early += data
            return
        super().data_received(data)
        self._time_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._address is not None:
            self._slots.give_back(self._address)
            self._address = None
        super().connection_lost(exc)

    def _time_the_head(self) -> None:
        """Bytes have arrived: run the timer until the head of the request is complete. The body has a
        timer of its own (`bodies.BODY_SECONDS`)."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
