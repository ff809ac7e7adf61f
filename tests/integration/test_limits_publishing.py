"""How fast one user may publish and call, and how much they may do by the hour."""

import json
import time
from contextlib import ExitStack

import pytest

from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.im import Device, devices, private
from tests.integration.limits_kit import (
    OPEN,
    PUBACK,
    PUBLISH,
    MakeNode,
    limited,
)
from tests.integration.node import Node
from tests.integration.raw import TIMEOUT, RawClient, packet, publish, subscribe

# --- publishing --------------------------------------------------------------------------


def subscribed(node: Node, user: str, name: str, topic_filter: str, qos: int = 0) -> RawClient:
    client = RawClient(node.port)
    client.login(name, user, node.token(user))
    client.send(subscribe(1, (topic_filter, qos)))
    assert client.expect(9).body[2:] == bytes((qos,))
    return client


def test_who_publishes_too_fast_is_read_later_and_loses_nothing(make_node: MakeNode) -> None:
    node = make_node("limits.publishes_per_second=100", OPEN).start()
    alice, bob = node.user("alice"), node.user("bob")
    token = node.token(bob)
    with subscribed(node, bob, "reader", "open/#") as reader, RawClient(node.port) as other:
        with RawClient(node.port) as flood:
            flood.login("flood", alice, node.token(alice))
            # Too many bytes for one read: what arrives together is taken together.
            flood.send(b"".join(publish("open/flood", b"%2000d" % n) for n in range(400)) + packet(0xE0))
        # The connection is gone by now. What it has sent is not.
        other.login("other", bob, token)
        other.send(publish("open/other", b"hello", 1, 1))
        other.expect(PUBACK)
        messages = [reader.message() for _ in range(401)]
        assert [int(payload) for topic, payload, *_ in messages if topic == "open/flood"] == [*range(400)]
        assert messages[-1][0] == "open/flood", "the other one did not wait for the flood"
        assert limited(node, "publishes_per_second") > 0


def test_all_connections_of_a_user_publish_from_one_allowance(make_node: MakeNode) -> None:
    node = make_node("limits.publishes_per_second=50", OPEN).start()
    alice, bob = node.user("alice"), node.user("bob")
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(node.port)) for _ in range(4)]
        for number, client in enumerate(clients):
            client.login(f"d{number}", alice, node.token(alice))
            client.send(b"".join(publish("open/a", b"x", 1, n + 1) for n in range(40)))
        for client in clients:  # 160 in all, of which 100 are free
            for _ in range(40):
                client.expect(PUBACK)
        counted = limited(node, "publishes_per_second")
        assert counted > 0
    with RawClient(node.port) as again, RawClient(node.port) as other:
        again.login("again", alice, node.token(alice))
        again.send(b"".join(publish("open/a", b"x", 1, n + 1) for n in range(90)))
        for _ in range(90):
            again.expect(PUBACK)
        assert limited(node, "publishes_per_second") > counted, "a new connection is no new allowance"
        counted = limited(node, "publishes_per_second")
        other.login("other", bob, node.token(bob))
        other.send(b"".join(publish("open/a", b"x", 1, n + 1) for n in range(90)))
        for _ in range(90):
            other.expect(PUBACK)
        assert limited(node, "publishes_per_second") == counted


@pytest.mark.parametrize(
    "topic", ["users/{}/inbox", "users/{}/rpc/users.get", "groups/none", "users/{}/typing"]
)
def test_every_publish_counts_and_what_waits_takes_no_memory(make_node: MakeNode, topic: str) -> None:
    node = make_node("limits.publishes_per_second=20").start()
    alice = node.user("alice")
    with RawClient(node.port) as client:
        client.login("d", alice, node.token(alice))
        client.socket.settimeout(1.0)
        flood = publish(topic.format(alice), b"{}") * 100_000
        before = node.rss_kb()
        with pytest.raises(TimeoutError):  # reading has paused
            client.send(flood * 20)
        assert limited(node, "publishes_per_second") > 0
        assert node.rss_kb() - before < 20 * 1024
        with RawClient(node.port) as other:
            user = node.user("other")
            other.login("d", user, node.token(user))
            other.send(packet(0xC0))
            other.expect(13)


# --- operations --------------------------------------------------------------------------


def test_calls_in_progress_of_a_user(make_node: MakeNode) -> None:
    node = make_node("limits.calls_per_user=3").start()
    alice, bob = node.user("alice"), node.user("bob")
    with RawClient(node.port) as many, Device(node, bob) as other:
        many.login("d", alice, node.token(alice))
        many.send(subscribe(1, (f"users/{alice}/replies", 0)))
        many.expect(9)
        calls = [publish(f"users/{alice}/rpc/messages.sync", b'{"request_id":"r%d"}' % n) for n in range(60)]
        many.send(b"".join(calls) + packet(0xC0))
        other.rpc("users.get", user_ids=[bob])
        answers = 0
        while many.expect_any().type == PUBLISH:
            answers += 1
        refused = limited(node, "calls_per_user")  # all have come by the PINGRESP
        assert 0 < refused == node.stats()["refused.overloaded"]
        for _ in range(60 - refused - answers):
            assert json.loads(many.message()[1])["ok"]
        many.send(publish(f"users/{alice}/rpc/users.get", b'{"user_ids":["%s"]}' % alice.encode()))
        assert json.loads(many.message()[1])["ok"]


def test_groups_and_contact_requests(make_node: MakeNode) -> None:
    node = make_node("limits.groups_per_hour=3", "limits.contact_requests_per_hour=2").start()
    alice, bob, carol, dave = (node.user(name) for name in ("alice", "bob", "carol", "dave"))
    with devices(node, alice, bob, each=1) as (a, b):
        assert a.refused("groups.create", members=["nobody"]) == "not_found"
        group = a.rpc("groups.create")["group_id"]
        assert a.refused("groups.create", group_id=group) == "exists"
        for _ in range(2):
            a.rpc("groups.create")
        assert a.refused("groups.create") == "quota"
        b.rpc("groups.create")
        node.group(alice)  # an administrator's does not count
        assert limited(node, "groups_per_hour") == 1

        a.rpc("contacts.request", user_id=bob)
        assert a.refused("contacts.request", user_id="nobody") == "not_found"
        a.rpc("contacts.request", user_id=carol)
        assert a.refused("contacts.request", user_id=dave) == "quota"
        a.rpc("contacts.remove", user_id=bob)
        assert a.refused("contacts.request", user_id=bob) == "quota"
        b.rpc("contacts.request", user_id=alice)
        a.rpc("contacts.accept", user_id=bob)
        assert limited(node, "contact_requests_per_hour") == 2


def numbered(count: int, user: str) -> list[pb.SendRequest]:
    return [pb.SendRequest(user_id=user, content=b'"hi"') for _ in range(count)]


@pytest.mark.parametrize("size", [1, 20])
def test_calls_count_as_publishes(make_node: MakeNode, size: int) -> None:
    """Over gRPC a user has the same allowance as over MQTT, also in batches. A service has none."""
    node = make_node("limits.publishes_per_second=20").start()
    alice, bob = node.user("alice"), node.user("bob")
    user = (("authorization", f"Bearer {node.token(alice)}"),)
    stub = services.MessageServiceStub(node._channel)  # type: ignore[no-untyped-call]
    calls = 100 // size

    def send(metadata: tuple[tuple[str, str], ...]) -> float:
        before = time.monotonic()
        for _ in range(calls):
            request = pb.SendBatchRequest(messages=numbered(size, bob))
            results = stub.SendMessages(request, metadata=metadata, timeout=TIMEOUT).results
            assert all(result.HasField("sent") for result in results)
        return time.monotonic() - before

    service = (*node.metadata, ("im-on-behalf-of", alice))
    send(service)
    assert limited(node, "publishes_per_second") == 0
    # 40 at once. The last batch may be owed.
    assert send(user) > (100 - 40 - size) / 20 * 0.9
    assert (waited := limited(node, "publishes_per_second")) > 0
    send(service)
    assert limited(node, "publishes_per_second") == waited


def test_a_batch_over_mqtt_is_counted(make_node: MakeNode) -> None:
    node = make_node("limits.publishes_per_second=20").start()
    alice, bob = node.user("alice"), node.user("bob")
    batch = [{"user_id": bob, "content": "hi"} for _ in range(60)]
    with Device(node, alice) as a:
        before = time.monotonic()
        for _ in range(4):  # a call is taken, and the next one has to wait for what it owes
            a.rpc("messages.send_batch", messages=batch)
        assert time.monotonic() - before > 2.0
        assert limited(node, "publishes_per_second") > 0
        assert len(node.history(private(alice, bob))) == 240
