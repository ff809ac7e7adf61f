"""The node's gRPC server: who may call, and what a caller is told when a call fails."""

import hmac
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio

from bridge.admin import Administration
from bridge.grpc_api.admin_service import AdminService
from bridge.grpc_api.errors import CODE_KEY, describe

logger = logging.getLogger(__name__)

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second node would take half of the calls, silently
    ("grpc.max_concurrent_streams", 100),  # per connection
)

Context = grpc.aio.ServicerContext[Any, Any]
# in quotes: generic in their stubs only
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]"


class Service(Protocol):
    """A gRPC service that can be offered."""

    def join(self, server: grpc.aio.Server) -> None:
        """Have the server offer this service."""
        ...


class Server:
    """A server that listens on `host:port`."""

    def __init__(self, server: grpc.aio.Server, host: str, port: int) -> None:
        self._server = server
        self.host = host
        self.port = port

    @property
    def address(self) -> str:
        """What a client connects to."""
        return f"{self.host}:{self.port}"

    async def stop(self, grace: float = 1.0) -> None:
        """Take no more calls; give those that run `grace` seconds, then cancel them."""
        await self._server.stop(grace)


async def start(administration: Administration, bind: str, token: str) -> Server:
    """Serve the API on `bind` ("host:port"; port 0 takes a free one) to whoever knows the token.

    Raises:
        OSError: it cannot listen there; the text says why.
        ValueError: the token is empty.
    """
    return await serve((AdminService(administration),), bind, token)


async def serve(services: tuple[Service, ...], bind: str, token: str) -> Server:
    """Serve some services; see `start`."""
    if not token:
        raise ValueError("the token is empty")
    server = grpc.aio.server(interceptors=(Authentication(token), Failures()), options=_OPTIONS)
    for service in services:
        service.join(server)
    # Asked for first: gRPC keeps the reason to itself and writes lines of its own to standard error.
    if reason := _why_not(bind):
        raise OSError(f"grpc.bind: cannot listen on {bind}: {reason}")
    try:
        port = server.add_insecure_port(bind)
    except RuntimeError as error:
        raise OSError(f"grpc.bind: cannot listen on {bind}: {error}") from error
    await server.start()
    return Server(server, bind.rpartition(":")[0], port)


def _why_not(bind: str) -> str | None:
    """Why an address cannot be listened on, or None if it can."""
    host, _, port = bind.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # gRPC would listen somewhere else
        return "not of the form host:port"
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error.strerror or str(error)
    return None


class Authentication(grpc.aio.ServerInterceptor):
    """Lets calls pass that carry `authorization: Bearer <token>`."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """See `grpc.aio.ServerInterceptor`."""
        given = [value for key, value in handler_call_details.invocation_metadata if key == "authorization"]
        if len(given) == 1 and hmac.compare_digest(_octets(given[0]), self._expected):
            return await continuation(handler_call_details)
        logger.warning("gRPC: %s refused: wrong or missing token", handler_call_details.method)
        return _UNAUTHENTICATED


def _octets(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


async def _refuse(_request: Any, context: Context) -> None:
    await context.abort(
        grpc.StatusCode.UNAUTHENTICATED, "wrong or missing token", ((CODE_KEY, "unauthenticated"),)
    )


# A handler of one request and one response answers all kinds of calls: it only sends a status.
_UNAUTHENTICATED: Handler = grpc.unary_unary_rpc_method_handler(_refuse)


class Failures(grpc.aio.ServerInterceptor):
    """Turns what a handler raises into a status."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None  # no such method: gRPC says so
        codecs = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(_guarded(handler.unary_unary, method), **codecs)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(handler.unary_stream, method), **codecs
            )
        return handler  # with a stream of requests: reflection, which has errors of its own


def _guarded(behavior: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def call(request: Any, context: Context) -> Any:
        try:
            return await behavior(request, context)
        except Exception as error:
            await _abort(context, error, method)

    return call


def _guarded_stream(behavior: Callable[..., Any], method: str) -> Callable[..., Any]:
    async def call(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for response in behavior(request, context):
                yield response
        except Exception as error:
            await _abort(context, error, method)

    return call


async def _abort(context: Context, error: Exception, method: str) -> None:
    status, details, code = describe(error, method)
    await context.abort(status, details, ((CODE_KEY, code),))
