"""SIGHUP and the section `limits`: each key changes at once, or is named as one that needs a restart."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2, im_admin_pb2_grpc
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api import im_pb2_grpc as services
from broker.config import RELOADED, Limits
from tests.integration import raw
from tests.integration.im import devices
from tests.integration.node import HOST, Node, wait_for
from tests.integration.raw import RawClient
from tests.integration.test_reload import Reloadable

PUBACK, SUBACK = 4, 9
ALONE = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))


@pytest.fixture
def served(make_node: Callable[..., Node], tmp_path: Path) -> Reloadable:
    reloadable = Reloadable(make_node, tmp_path)
    reloadable.node.start()
    return reloadable


def test_every_key_is_reloaded_or_named(served: Reloadable) -> None:
    new = {key: type(value)(value * 2) for key, value in Limits().model_dump().items()}
    new |= {"max_inflight": 50, "group_members": 50, "presence_grace": 1.0}
    said = served.change("limits", **new)
    for key, old in Limits().model_dump().items():
        if f"limits.{key}" in RELOADED:
            assert f"limits.{key}: {old!r} -> {new[key]!r}" in said
        else:
            assert f"limits.{key} differs, and takes effect only after a restart" in said
    assert len(said) == len(new)
    assert served.hang_up() == [line for line in said if "restart" in line]


def is_let_in(served: Reloadable, stack: ExitStack) -> bool:
    client = stack.enter_context(RawClient(served.node.port))
    try:
        client.send(raw.connect("nobody"))
    except ConnectionError:
        return False
    return client.receive() is not None


def is_served(served: Reloadable, stack: ExitStack) -> bool:
    channel = stack.enter_context(grpc.insecure_channel(served.node.grpc, options=ALONE))
    stub = im_admin_pb2_grpc.AdminServiceStub(channel)
    try:
        stub.Stats(im_admin_pb2.StatsRequest(), metadata=served.node.metadata, timeout=10)
    except grpc.RpcError:
        return False
    return True


def test_connections_of_an_address(served: Reloadable) -> None:
    """What is connected stays, and counts."""
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(served.node.port)) for _ in range(3)]
        for number, client in enumerate(clients):
            user = served.node.user(f"u{number}")
            client.send(raw.connect("c", user, served.node.token(user)))
            assert client.receive().body[1] == 0
        assert is_served(served, stack)
        served.change("limits", connections_per_address=2)
        assert not is_let_in(served, stack)
        assert not is_served(served, stack), f"{HOST} has two connections: that of the node's own client, too"
        for client in clients:
            client.send(raw.packet(0xC0))
            assert client.receive().type == 13
        served.change("limits", connections_per_address=100)
        assert is_let_in(served, stack)
        assert is_served(served, stack)


def test_connects_per_second(served: Reloadable) -> None:
    served.change("limits", connects_per_second=1)
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(RawClient(served.node.port))
        wait_for(lambda: served.node.stats().get("limited.connects_per_second"), "one that waits")


def test_quotas_of_an_hour(served: Reloadable) -> None:
    """What was done before counts."""
    user = served.node.user("founder")
    with devices(served.node, user, each=1) as (founder,):
        for _ in range(2):
            founder.rpc("groups.create")
        served.change("limits", groups_per_hour=3)
        founder.rpc("groups.create")
        assert founder.refused("groups.create") == "quota"
        served.change("limits", groups_per_hour=5)
        for _ in range(2):
            founder.rpc("groups.create")
        assert founder.refused("groups.create") == "quota"
    assert served.node.stats()["limited.groups_per_hour"] == 2


def test_contact_requests_of_an_hour(served: Reloadable) -> None:
    names = ("asker", "one", "two", "three")
    asker, one, two, three = (served.node.user(name) for name in names)
    with devices(served.node, asker, each=1) as (device,):
        device.rpc("contacts.request", user_id=one)
        served.change("limits", contact_requests_per_hour=2)
        device.rpc("contacts.request", user_id=two)
        assert device.refused("contacts.request", user_id=three) == "quota"


def test_streams_of_a_user(served: Reloadable) -> None:
    """Those that are open stay."""
    user = served.node.user("reader")
    metadata = (("authorization", f"Bearer {served.node.token(user)}"),)
    with grpc.insecure_channel(served.node.grpc) as channel:
        stub = services.MessageServiceStub(channel)

        def follow() -> Any:
            stream = stub.SyncMessages(pb.SyncRequest(follow=True), metadata=metadata, timeout=60)
            stub.SendMessage(pb.SendRequest(user_id=user, content=b'"x"'), metadata=metadata, timeout=10)
            next(stream)
            return stream

        first = follow()
        served.change("limits", calls_per_user=1)
        with pytest.raises(grpc.RpcError) as raised:
            follow()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert first.is_active()
        served.change("limits", calls_per_user=2)
        follow()


@pytest.mark.parametrize("key", ["retained_messages", "retained_messages_per_user"])
def test_retained_messages(served: Reloadable, key: str) -> None:
    """What is retained stays."""
    user = served.node.user("sensor")
    served.change("topics", open=["open/#"])
    with RawClient(served.node.port) as client:
        client.login("c", user, served.node.token(user))
        for number in range(1, 4):
            client.send(raw.publish(f"open/{number}", b"x", 1, number, retain=True))
            client.expect(PUBACK)
        served.change("limits", **{key: 2})
        client.send(raw.publish("open/4", b"x", 1, 4, retain=True))
        client.expect(PUBACK)
        wait_for(lambda: served.node.stats().get(f"limited.{key}"), "the limit to have an effect")
        client.send(raw.subscribe(5, ("open/#", 0)))
        client.expect(SUBACK)
        assert {client.message()[0] for _ in range(3)} == {"open/1", "open/2", "open/3"}
