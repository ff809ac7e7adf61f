"""The node's gRPC server."""

import contextlib
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio
import msgspec
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha import reflection

from bridge.core.bearer import TokenReader
from bridge.core.operations import Operations
from bridge.grpc_api.authentication import CallAuthenticator
from bridge.grpc_api.changes import Changes
from bridge.grpc_api.guard import CALLS_PER_USER, CONCURRENCY, IDLE_SECONDS, Guard
from bridge.grpc_api.listening import PrivateSocket, listen
from bridge.grpc_api.relay import Relay, Slots
from bridge.grpc_api.services import ADMINISTRATION, SERVICES, OperationService
from bridge.grpc_api.syncing import Syncing
from bridge.grpc_api.tls import Tls
from broker.ports import BrokerPort, Directory


class Patience(msgspec.Struct, frozen=True):
    """Seconds that a connection may take for its handshake, may last without a call, and after which it is
    closed if its client's network does not answer."""

    handshake: float = 10.0
    idle: float = IDLE_SECONDS
    unreachable: float = 40.0


def _options(patience: Patience) -> list[tuple[str, int]]:
    half = int(patience.unreachable * 500)
    return [
        ("grpc.max_concurrent_streams", 100),  # per connection
        ("grpc.server_handshake_timeout_ms", int(patience.handshake * 1000)),
        ("grpc.max_connection_idle_ms", int(patience.idle * 1000)),
        # Clients of long streams whose network has died: they are asked, and closed without an answer.
        ("grpc.keepalive_time_ms", half),
        ("grpc.keepalive_timeout_ms", half),
        ("grpc.http2.ping_timeout_ms", half),  # else a minute, whatever the other is
        ("grpc.http2.max_pings_without_data", 0),  # any number: a stream may have nothing to send for days
    ]


class Service(Protocol):
    """A gRPC service that can be offered. `name` is its full name, e.g. `im.UserService`."""

    name: str

    def join(self, server: grpc.aio.Server) -> None:
        """Add this service to the server."""
        ...


class Offer(msgspec.Struct, frozen=True):
    """What the server offers besides the administration: the operations, to users and services. Without
    `tokens`, only the admin token is accepted. `limited` counts how often a limit had an effect, by its
    key."""

    operations: Operations
    broker: BrokerPort
    directory: Directory
    tokens: TokenReader | None
    concurrency: int = CONCURRENCY
    calls_per_user: int = CALLS_PER_USER
    limited: Counter[str] = msgspec.field(default_factory=Counter)


class Server:
    """A running server that listens on `host:port`."""

    def __init__(
        self,
        server: grpc.aio.Server,
        health: health.aio.HealthServicer,
        names: Sequence[str],
        guard: Guard,
        relay: Relay,
        host: str,
    ) -> None:
        self._names = names
        self._server = server
        self._health = health
        self._guard = guard
        self._relay = relay
        self.host = host
        self.port = relay.port

    @property
    def address(self) -> str:
        """The address for clients: `host:port`."""
        return f"{self.host}:{self.port}"

    def reload(self, calls_per_user: int) -> None:
        """Change the limit. Calls and streams that there are go on."""
        self._guard.allow_calls(calls_per_user)

    async def set_ready(self, ready: bool) -> None:
        """Say by the standard health service whether the node is ready."""
        status = HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
        for name in self._names:
            await self._health.set(name, status)

    async def stop(self, grace: float = 1.0) -> None:
        """Accept no more calls, wait up to `grace` seconds for those that are running, then cancel them."""
        self._relay.stop_accepting()
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
        await self._guard.close()
        await self._relay.close()


_PATIENCE = Patience()


async def start(
    administration: Operations,
    bind: str,
    token: str,
    slots: Slots,
    offer: Offer | None = None,
    tls: Tls | None = None,
    patience: Patience = _PATIENCE,
) -> Server:
    """Serve the API on `bind` ("host:port"; port 0 takes a free one). `administration` is offered to
    administrators, `offer` to all who authenticate. `token` is the admin token. A
    connection without one of the `slots` is closed.

    Raises:
        OSError: the address cannot be listened on; the text says why.
        ValueError: the token is empty.
    """
    if not token:  # else a call without a token would be an administrator's
        raise ValueError("the admin token is empty")
    services: list[Service] = [OperationService(ADMINISTRATION, administration)]
    if offer is None:
        guard = Guard(CallAuthenticator(token), idle_seconds=patience.idle)
        return await serve(services, bind, guard, slots, tls, patience)
    changes = Changes()
    offer.directory.on_change(changes.tell)
    streams = {"SyncMessages": Syncing(offer.operations, offer.broker, changes)}
    offered = (name for name in SERVICES if name != ADMINISTRATION)
    services += [OperationService(name, offer.operations, streams) for name in offered]
    authenticator = CallAuthenticator(token, offer.directory, offer.tokens, changes)
    guard = Guard(
        authenticator,
        offer.concurrency,
        offer.calls_per_user,
        offer.limited,
        patience.idle,
        offer.broker,
    )
    return await serve(services, bind, guard, slots, tls, patience)


async def serve(
    services: Sequence[Service],
    bind: str,
    guard: Guard,
    slots: Slots,
    tls: Tls | None = None,
    patience: Patience = _PATIENCE,
) -> Server:
    """Serve `services`, and the standard health and reflection services. Raises `OSError` as `start`."""
    server = grpc.aio.server(interceptors=(guard,), options=_options(patience))
    for service in services:
        service.join(server)
    names = [service.name for service in services]
    healthy = health.aio.HealthServicer()
    for name in names:
        await healthy.set(name, HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    reflection.enable_server_reflection((*names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    relay = await _open(server, listen(bind), slots, tls)
    return Server(server, healthy, ("", *names), guard, relay, bind.rpartition(":")[0])


async def _open(
    server: grpc.aio.Server, sockets: list[socket.socket], slots: Slots, tls: Tls | None
) -> Relay:
    """Start the server, and relay to it what comes to `sockets`, which are closed if that fails."""
    with contextlib.ExitStack() as stack:
        for sock in sockets:
            stack.callback(sock.close)
        inside = PrivateSocket()
        stack.callback(inside.close)
        try:
            if tls:
                server.add_secure_port(inside.address, tls.credentials())
            else:
                server.add_insecure_port(inside.address)
        except RuntimeError as error:
            raise OSError(f"grpc: cannot listen on a Unix socket: {error}") from error
        inside.hide()
        await server.start()
        relay = Relay(sockets, inside, slots)
        await relay.start()
        stack.pop_all()
        return relay
