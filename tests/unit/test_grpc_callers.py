"""Who may make calls over gRPC, and for whom."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bridge.grpc_api import im_admin_pb2, im_admin_pb2_grpc
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api.services import SERVICES
from tests.unit.grpc_kit import ADMIN, DENIED, INVALID, UNAUTHENTICATED, failure, tiny_node

# --- who may call ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "behalf", "caller"),
    [
        (ADMIN, None, ("system", "system")),
        (ADMIN, "bob", ("bob", "user")),
        ("token-of-alice", None, ("alice", "user")),
        ("token-of-root", None, ("system", "system")),
        ("token-of-root", "alice", ("alice", "user")),
        ("token-of-robot", None, ("system", "system")),
        ("token-of-robot", "bob", ("bob", "user")),
        ("token-of-robot", "robot", ("robot", "user")),
    ],
)
async def test_callers(token: str, behalf: str | None, caller: tuple[str, str]) -> None:
    async with tiny_node() as node:
        (profile,) = (await node.call("UserService/GetUsers", pb.GetUsersRequest(), token, behalf)).users
        assert (profile.user_id, profile.name) == caller


@pytest.mark.parametrize(
    ("metadata", "status", "code"),
    [
        ((), UNAUTHENTICATED, "unauthenticated"),
        ((("authorization", ""),), UNAUTHENTICATED, "unauthenticated"),
        ((("authorization", "Bearer"),), UNAUTHENTICATED, "unauthenticated"),
        ((("authorization", ADMIN),), UNAUTHENTICATED, "unauthenticated"),
        ((("authorization", "Bearer wrong"),), UNAUTHENTICATED, "unauthenticated"),
        ((("authorization", f"Basic {ADMIN}"),), UNAUTHENTICATED, "unauthenticated"),
        ((("authorization", f"Bearer {ADMIN}"),) * 2, UNAUTHENTICATED, "unauthenticated"),
        ((("authorization", "Bearer token-of-carol"),), UNAUTHENTICATED, "unauthenticated"),
        ((("im-on-behalf-of", "alice"),), UNAUTHENTICATED, "unauthenticated"),
    ],
)
async def test_no_callers(metadata: Any, status: grpc.StatusCode, code: str) -> None:
    async with tiny_node() as node:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await node.raw("UserService/GetUsers", b"", metadata)
        assert failure(raised.value)[:2] == (status, code)
        stream = node.channel.unary_stream("/im.MessageService/SyncMessages")(b"", metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
        assert failure(raised.value)[:2] == (status, code)


@pytest.mark.parametrize(
    ("token", "behalf", "status", "code"),
    [
        ("token-of-alice", "bob", DENIED, "not_authorized"),
        ("token-of-alice", "alice", DENIED, "not_authorized"),
        ("token-of-robot", "nobody", grpc.StatusCode.NOT_FOUND, "not_found"),
        ("token-of-robot", "system", grpc.StatusCode.NOT_FOUND, "not_found"),
        ("token-of-robot", "carol", DENIED, "disabled"),
        (ADMIN, "not an id", INVALID, "invalid_params"),
    ],
)
async def test_on_behalf_of_whom(token: str, behalf: str, status: grpc.StatusCode, code: str) -> None:
    async with tiny_node() as node:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await node.call("UserService/GetUsers", pb.GetUsersRequest(), token, behalf)
        assert failure(raised.value)[:2] == (status, code)


async def test_a_stranger_is_refused_before_the_request_has_come() -> None:
    """What strangers begin to send and do not end would else be kept: 4 MiB of each call."""
    async with tiny_node() as node:
        endless = asyncio.Event()

        async def nothing() -> AsyncIterator[bytes]:
            await endless.wait()
            yield b""

        call: Any = node.channel.stream_unary("/im.MessageService/SendMessages")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(nothing(), timeout=10)
        assert failure(raised.value)[:2] == (UNAUTHENTICATED, "unauthenticated")


async def test_revoked_tokens_and_a_store_that_fails() -> None:
    async with tiny_node() as node:
        node.directory.revoke("alice")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await node.call("UserService/GetUsers", pb.GetUsersRequest(), "token-of-alice")
        assert failure(raised.value)[:2] == (UNAUTHENTICATED, "unauthenticated")
        node.directory.fails = True
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await node.call("UserService/GetUsers", pb.GetUsersRequest(), "token-of-bob")
        assert failure(raised.value) == (
            grpc.StatusCode.UNAVAILABLE,
            "unavailable",
            "the store failed, try again later",
        )


@pytest.mark.parametrize(
    ("token", "behalf", "allowed"),
    [
        (ADMIN, None, True),
        ("token-of-root", None, True),
        ("token-of-robot", None, False),
        ("token-of-alice", None, False),
        (ADMIN, "alice", False),
    ],
)
async def test_the_administration_is_for_administrators(
    token: str, behalf: str | None, allowed: bool
) -> None:
    async with tiny_node() as node:
        admin: Any = im_admin_pb2_grpc.AdminServiceStub(node.channel)
        metadata = [("authorization", f"Bearer {token}"), *([("im-on-behalf-of", behalf)] if behalf else [])]
        call = admin.Stats(im_admin_pb2.StatsRequest(), metadata=metadata)
        if allowed:
            assert dict((await call).values) == {"calls": 1}
        else:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            assert failure(raised.value)[:2] == (DENIED, "not_authorized")


async def test_health_is_for_everybody_and_reflection_for_callers() -> None:
    async with tiny_node() as node:
        health: Any = health_pb2_grpc.HealthStub(node.channel)
        for name in ("", "im.MessageService", "im.AdminService"):
            reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health.Check(health_pb2.HealthCheckRequest(service="nothing"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND

        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(node.channel)
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        stream = reflection.ServerReflectionInfo(iter(asked))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
        assert failure(raised.value)[:2] == (UNAUTHENTICATED, "unauthenticated")
        metadata = (("authorization", "Bearer token-of-alice"),)
        reply = await reflection.ServerReflectionInfo(iter(asked), metadata=metadata).read()
        assert {each.name for each in reply.list_services_response.service} == {
            "im.AdminService",
            *(f"im.{name}" for name in SERVICES),
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }


async def test_unknown_methods() -> None:
    async with tiny_node() as node:
        call = node.channel.unary_unary("/im.MessageService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", metadata=(("authorization", f"Bearer {ADMIN}"),))
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
