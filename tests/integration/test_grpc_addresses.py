"""The limits of an address over gRPC, with real clients. Others are served, and the node knows who calls."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2, im_admin_pb2_grpc
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.link import Link
from tests.integration.node import HOST, Node, wait_for
from tests.integration.raw import TIMEOUT

MakeNode = Callable[..., Node]

OTHER = "127.0.0.2"
ALONE = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
"""Options of a channel that has a connection of its own."""


def port_of(node: Node) -> int:
    return int(node.grpc.rpartition(":")[2])


def channel_to(port: int, stack: ExitStack) -> grpc.Channel:
    return stack.enter_context(grpc.insecure_channel(f"{HOST}:{port}", options=ALONE))


def is_served(node: Node, channel: grpc.Channel) -> bool:
    stub = im_admin_pb2_grpc.AdminServiceStub(channel)
    try:
        return bool(stub.Stats(im_admin_pb2.StatsRequest(), metadata=node.metadata, timeout=TIMEOUT).values)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return False
        raise


def test_connections_of_an_address(make_node: MakeNode) -> None:
    node = make_node("limits.connections_per_address=4").start()
    assert node.stats()["clients_connected"] == 0, "the node's own client is the first"
    with ExitStack() as stack:
        link = stack.enter_context(Link(port_of(node), OTHER))
        held = [channel_to(port_of(node), stack) for _ in range(3)]
        assert [is_served(node, channel) for channel in held] == [True] * 3
        assert not is_served(node, channel_to(port_of(node), stack))
        assert is_served(node, channel_to(link.port, stack)), "another address"
        stats = node.stats()
        assert stats["limited.connections_per_address"] >= 1
        assert stats["refused.address"] == stats["limited.connections_per_address"]
        held[0].close()
        wait_for(lambda: is_served(node, channel_to(port_of(node), stack)), "a connection to be free")


def test_who_connects_too_fast_waits(make_node: MakeNode) -> None:
    node = make_node("limits.connects_per_second=2", "limits.connect_timeout=3.0").start()
    with ExitStack() as stack:
        link = stack.enter_context(Link(port_of(node), OTHER))
        began = time.monotonic()
        clients = [stack.enter_context(socket.create_connection((HOST, link.port), 10)) for _ in range(100)]
        # Those that may be served get gRPC's first frame.
        answers = []
        for client in clients:
            with contextlib.suppress(ConnectionError):
                answers.append((bool(client.recv(1)), time.monotonic() - began))
        served = [seconds for was_served, seconds in answers if was_served]
        assert 20 <= len(served) < 40, "20 at once, some later, and the others not at all"
        assert max(served) > 0.4
        assert node.stats()["limited.connects_per_second"] >= 20
        assert is_served(node, channel_to(port_of(node), stack)), "another address"


@pytest.mark.parametrize("key", ["node.trusted_proxies", "http.trusted_proxies"])
def test_a_proxy_has_no_limits(make_node: MakeNode, key: str) -> None:
    node = make_node(
        "limits.connections_per_address=2", "limits.connects_per_second=1", f"{key}=[127.0.0.0/8]"
    ).start()
    with ExitStack() as stack:
        channels = [channel_to(port_of(node), stack) for _ in range(20)]
        assert [is_served(node, channel) for channel in channels] == [True] * 20
    assert not [name for name in node.stats() if name.startswith("limited.")]


def test_the_log_names_the_address_of_a_caller(node: Node) -> None:
    with ExitStack() as stack:
        link = stack.enter_context(Link(port_of(node), OTHER))
        stub = services.UserServiceStub(channel_to(link.port, stack))
        with pytest.raises(grpc.RpcError) as raised:
            stub.GetUsers(pb.GetUsersRequest(), metadata=(("authorization", "Bearer wrong"),), timeout=10)
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    wait_for(lambda: re.search(rf"GetUsers refused for {re.escape(OTHER)}:", node.log()), "the line")


def test_a_client_of_a_stream_that_does_not_read(node: Node) -> None:
    """What it does not take stays in the log. Others are served meanwhile."""
    alice, bob = node.user("alice"), node.user("bob")
    text = json.dumps("x" * 50_000).encode()
    with ExitStack() as stack:
        behalf = (*node.metadata, ("im-on-behalf-of", alice))
        stub = services.MessageServiceStub(channel_to(port_of(node), stack))
        for _ in range(100):
            items = [pb.SendRequest(user_id=bob, content=text) for _ in range(5)]
            stub.SendMessages(pb.SendBatchRequest(messages=items), metadata=behalf, timeout=30)
        before = node.rss_kb()
        reading = (*node.metadata, ("im-on-behalf-of", bob))
        streams = []
        for _ in range(50):
            slow = services.MessageServiceStub(channel_to(port_of(node), stack))
            stream = slow.SyncMessages(pb.SyncRequest(), metadata=reading, timeout=120)
            assert next(stream).topic == f"users/{bob}/inbox"
            streams.append(stream)
        assert is_served(node, channel_to(port_of(node), stack))
        # All that is unread would be 50 times 25 MB.
        assert node.rss_kb() - before < 200_000
        assert sum(1 for _ in streams[0]) == 499


def test_nothing_is_left_of_a_node_that_was_killed(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node()
    node.environment["TMPDIR"] = str(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()
    node.start()
    node.kill()
    assert not list((tmp_path / "temporary").iterdir())
