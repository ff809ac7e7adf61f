"""The interceptor around every call: authentication, admission, and errors."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from bridge.core.operations import Caller
from bridge.core.pacing import pace
from bridge.grpc_api.admission import Admission, Streams
from bridge.grpc_api.authentication import CALL, Call, CallAuthenticator, Metadata
from bridge.grpc_api.errors import describe, trailer
from broker.domain.acting import acting_for
from broker.domain.errors import RefusedError
from broker.domain.rates import network_of
from broker.ports import BrokerPort

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
# In quotes: these classes are generic in their stubs only.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]"

CONCURRENCY = 64
CALLS_PER_USER = 256
IDLE_SECONDS = 60.0
"""How long a connection that has made no accepted call may watch the health of services."""
_MOST_ACCEPTED = 10_000
_CLOSE_SECONDS = 2.0

_FOR_EVERYBODY = "/grpc.health.v1.Health/"
_FOR_ADMINISTRATORS = "/im.AdminService/"

_END: Any = object()


class Guard(grpc.aio.ServerInterceptor):
    """Lets calls pass that `authenticator` accepts. `im.AdminService` is for administrators; services act
    for the system, too, but may not use it.

    At most `concurrency` calls run at once, fewer if they are large; some more wait, and further ones are
    refused, as are those of a user beyond `calls_per_user` (`Admission`). Streams are counted by
    themselves: a user may have as many open. A call that is cancelled while it waits is not started. A
    call that has started runs to its end, even if its client has gone: half a change would be worse than
    a change that nobody waits for. Each call of a user counts as a publish, and waits if the user publishes
    too fast.

    Everybody may ask for the health of services. A connection is not kept open by watching it, unless it
    has made an accepted call: `Watch` ends after `idle_seconds`.
    """

    def __init__(
        self,
        authenticator: CallAuthenticator,
        concurrency: int = CONCURRENCY,
        calls_per_user: int = CALLS_PER_USER,
        limited: Counter[str] | None = None,
        idle_seconds: float = IDLE_SECONDS,
        broker: BrokerPort | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._idle_seconds = idle_seconds
        self._broker = broker
        self._accepted: dict[str, None] = {}
        """gRPC's names of the connections whose calls were accepted, the latest last."""
        counter = limited if limited is not None else Counter[str]()
        self._admission = Admission(concurrency, calls_per_user, counter)
        self._streams = Streams(calls_per_user, counter)
        self._running: set[asyncio.Future[Any]] = set()

    def allow_calls(self, of_user: int) -> None:
        """Change `calls_per_user`."""
        self._admission.allow(of_user)
        self._streams.allow(of_user)

    async def close(self) -> None:
        """Wait up to `_CLOSE_SECONDS` for the calls that are running, then cancel them."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=_CLOSE_SECONDS)
            for work in late:
                work.cancel()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """See `grpc.aio.ServerInterceptor`."""
        method = str(handler_call_details.method)
        if method.startswith(_FOR_EVERYBODY):
            return self._health(await continuation(handler_call_details))
        metadata = tuple(handler_call_details.invocation_metadata)
        try:
            call = await self._authenticator.authenticate(metadata)
            if method.startswith(_FOR_ADMINISTRATORS) and not call.administers:
                raise RefusedError("not_authorized", "only administrators may call im.AdminService")
        except Exception as error:
            return _refusing(error, method)
        CALL.set(call)
        acting_for(call.caller.user)
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # no such method: gRPC answers UNIMPLEMENTED
        serializer = handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler, method), response_serializer=serializer
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler, method, call, metadata), response_serializer=serializer
            )
        return handler  # takes a stream of requests: reflection, which reports errors in its own way

    def _health(self, handler: Any) -> Handler:
        """The handler of a health method: `Watch` with its time limit."""
        if handler is None or not handler.unary_stream:
            return handler  # type: ignore[no-any-return]

        async def watch(request: Any, context: Context) -> None:
            watching = asyncio.ensure_future(handler.unary_stream(request, context))
            try:
                while not (await asyncio.wait((watching,), timeout=self._idle_seconds))[0]:
                    if context.peer() not in self._accepted:
                        reason = "to watch for longer, make an accepted call on this connection"
                        await context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)
                await watching
            finally:
                watching.cancel()

        return grpc.unary_stream_rpc_method_handler(
            watch, handler.request_deserializer, handler.response_serializer
        )

    def _accept(self, peer: str) -> None:
        self._accepted.pop(peer, None)
        if len(self._accepted) >= _MOST_ACCEPTED:
            del self._accepted[next(iter(self._accepted))]
        self._accepted[peer] = None

    def _unary(self, handler: Any, method: str) -> Callable[..., Any]:
        async def serve(data: bytes, context: Context) -> Any:
            self._accept(context.peer())
            try:
                return await self._run(handler, data, context)
            except Exception as error:
                await _abort(context, error, method)

        return serve

    async def _run(self, handler: Any, data: bytes, context: Context) -> Any:
        caller = CALL.get().caller
        give_back = await self._admission.take(caller, len(data), partial(self._pace, caller))
        try:
            request = _parse(handler, data)  # only now: decoded, a request takes more memory
        except BaseException:
            give_back()
            raise
        work = asyncio.ensure_future(handler.unary_unary(request, context))
        self._running.add(work)
        work.add_done_callback(lambda work: self._ended(work, give_back))
        return await asyncio.shield(work)

    async def _pace(self, caller: Caller) -> None:
        if self._broker is not None:
            await pace(self._broker, caller, 1, wait=True)

    def _ended(self, work: asyncio.Future[Any], give_back: Callable[[], None]) -> None:
        self._running.discard(work)
        give_back()
        if not work.cancelled():
            work.exception()  # marks it as seen: perhaps nobody waits for the call any more

    def _stream(self, handler: Any, method: str, call: Call, metadata: Metadata) -> Callable[..., Any]:
        async def serve(data: bytes, context: Context) -> AsyncIterator[Any]:
            self._accept(context.peer())
            try:
                with self._streams.one(call.caller):
                    responses = handler.unary_stream(_parse(handler, data), context)
                    async with aclosing(self._while_accepted(responses, call, metadata)) as accepted:
                        async for response in accepted:
                            yield response
            except Exception as error:
                await _abort(context, error, method)

        return serve

    async def _while_accepted(
        self, responses: AsyncGenerator[Any, None], call: Call, metadata: Metadata
    ) -> AsyncGenerator[Any, None]:
        """The responses, as long as the call's credential is valid."""
        standing = self._authenticator.standing(call, metadata)
        following: asyncio.Future[Any] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(responses, _END))
                await standing.hold(following)
                response = following.result()
                if response is _END:
                    return
                yield response
        finally:
            standing.close()
            if following is not None and not following.done():
                following.cancel()
                await asyncio.wait((following,))
            await responses.aclose()


def host_of(peer: str) -> str:
    """The IP address in gRPC's name of a client, such as `ipv4:192.0.2.1:5000` or `ipv6:%5B::1%5D:5000`, or
    what ends so: the name that the relay gives it (`listening.PrivateSocket.connect`)."""
    return unquote(peer).rpartition("/")[2].partition(":")[2].rpartition(":")[0].strip("[]")


def _parse(handler: Any, data: bytes) -> Any:
    try:
        return handler.request_deserializer(data)
    except DecodeError:
        raise RefusedError("invalid_params", "the request is not of this method's message type") from None


def _refusing(error: Exception, method: str) -> Handler:
    async def refuse(_request: Any, context: Context) -> None:
        if isinstance(error, RefusedError):
            address = host_of(context.peer())
            about = {"client": network_of(address), "reason": f"gRPC {error.code}"}
            logger.warning("gRPC: %s refused for %s: %s", method[:200], address, error, extra=about)
        await _abort(context, error, method)

    # A handler for streams of requests answers calls of every kind, as it only sends a status. It does
    # not wait for the request either: what unauthenticated clients send is never held in memory.
    return grpc.stream_unary_rpc_method_handler(refuse)


async def _abort(context: Context, error: Exception, method: str) -> None:
    status, details, code = describe(error, method)
    facts = error.facts if isinstance(error, RefusedError) else {}
    await context.abort(status, details, trailer(status, details, code, facts))
