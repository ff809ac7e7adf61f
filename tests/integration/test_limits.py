"""What one user, and one address, may have and do. Whatever bites is counted, and bites nobody else."""

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.im import Device, devices, private
from tests.integration.node import HOST, Node, wait_for
from tests.integration.raw import TIMEOUT, RawClient, connect, packet, publish, subscribe
from tests.integration.test_websocket import WebSocketClient

MakeNode = Callable[..., Node]

OPEN = 'topics.open=["open/#"]'
ACCEPTED, BUSY = 0, 3
CONNACK, PUBLISH, PUBACK = 2, 3, 4


def limited(node: Node, key: str) -> int:
    """How often a limit has had an effect."""
    return node.stats().get(f"limited.{key}", 0)


def knock(node: Node, user: str, name: str, *, clean: bool = True) -> tuple[RawClient, int]:
    """A connection of a user, and the code of its CONNACK."""
    client = RawClient(node.port)
    client.send(connect(name, user, node.token(user), clean=clean))
    return client, client.expect(CONNACK).body[1]


class Crowd(ExitStack):
    """Connections that end together."""

    def come(self, node: Node, user: str, name: str, *, clean: bool = True) -> int:
        """Connect, and stay. Returns the code of the CONNACK."""
        client, code = knock(node, user, name, clean=clean)
        self.enter_context(client)
        return code


def visit(node: Node, user: str, name: str, *, clean: bool = False) -> int:
    """Connect, and go. Returns the code of the CONNACK."""
    client, code = knock(node, user, name, clean=clean)
    with client:
        if code == ACCEPTED:
            client.send(packet(0xE0))
            assert client.is_closed()
    return code


# --- connections and sessions ------------------------------------------------------------


def test_connections_of_a_user(make_node: MakeNode) -> None:
    node = make_node("limits.connections_per_user=3").start()
    alice, bob = node.user("alice"), node.user("bob")
    with Crowd() as crowd:
        assert [crowd.come(node, alice, f"d{n}") for n in range(3)] == [ACCEPTED] * 3
        client, code = knock(node, alice, "d3")
        with client:
            assert code == BUSY
            assert client.is_closed()
        assert crowd.come(node, alice, "d0") == ACCEPTED, "the connection takes over that of its client id"
        assert crowd.come(node, alice, "d4", clean=False) == BUSY
        assert [crowd.come(node, bob, f"d{n}") for n in range(3)] == [ACCEPTED] * 3
        assert limited(node, "connections_per_user") == 2
        assert "limits.connections_per_user" in node.log()
    wait_for(lambda: node.stats()["clients_connected"] == 0, "them to go")
    assert visit(node, alice, "d3") == ACCEPTED


def test_persistent_sessions_of_a_user(make_node: MakeNode) -> None:
    node = make_node("limits.sessions_per_user=3").start()
    alice, bob = node.user("alice"), node.user("bob")
    assert [visit(node, alice, name) for name in ("away-1", "away-2")] == [ACCEPTED] * 2
    with Crowd() as crowd:
        # One that is connected is perhaps not stored yet.
        assert crowd.come(node, alice, "here", clean=False) == ACCEPTED
        assert visit(node, alice, "new") == BUSY
        assert visit(node, alice, "new", clean=True) == ACCEPTED
        assert visit(node, alice, "away-1") == ACCEPTED
        assert visit(node, bob, "new") == ACCEPTED
        assert limited(node, "sessions_per_user") == 1
    node.kill()
    node.start()
    wait_for(lambda: visit(node, alice, "here") == ACCEPTED, "a session that was not stored to be made anew")
    assert visit(node, alice, "new") == BUSY
    assert visit(node, alice, "away-2", clean=True) == ACCEPTED
    assert visit(node, alice, "new") == ACCEPTED
    assert visit(node, alice, "away-2") == BUSY


def test_sessions_that_begin_at_once(make_node: MakeNode) -> None:
    node = make_node("limits.sessions_per_user=5").start()
    alice = node.user("alice")
    with ExitStack() as stack:
        token = node.token(alice)
        clients = [stack.enter_context(RawClient(node.port)) for _ in range(20)]
        for number, client in enumerate(clients):
            client.send(connect(f"d{number}", alice, token, clean=False))
        codes = [client.expect(CONNACK).body[1] for client in clients]
    assert sorted(codes) == [ACCEPTED] * 5 + [BUSY] * 15


def is_open(node: Node, stack: ExitStack) -> bool:
    """Connect without a user; returns whether the node answers at all."""
    client = stack.enter_context(RawClient(node.port))
    try:
        client.send(connect("nobody"))
    except ConnectionError:
        return False
    return client.receive() is not None


def test_connections_of_an_address(make_node: MakeNode) -> None:
    node = make_node("limits.connections_per_address=4").start()
    alice = node.user("alice")
    with Crowd() as crowd:
        assert [crowd.come(node, alice, f"d{n}") for n in range(3)] == [ACCEPTED] * 3
        with WebSocketClient(node) as web:
            web.login("web", alice, node.token(alice))
            with ExitStack() as stack:
                assert [is_open(node, stack) for _ in range(3)] == [False] * 3
            assert limited(node, "connections_per_address") == 3
        wait_for(lambda: node.stats()["clients_connected"] == 3, "it to go")
        assert crowd.come(node, alice, "d3") == ACCEPTED


@pytest.mark.parametrize("way", ["ws_port", "http"])
def test_connections_of_an_address_that_say_nothing(make_node: MakeNode, way: str) -> None:
    """Those over WebSocket are counted before their handshake. Those over HTTP have a count of their own."""
    node = make_node("limits.connections_per_address=3", "limits.connect_timeout=30").start()
    port = int(str(getattr(node, way)).rpartition(":")[2])
    with ExitStack() as stack:

        def is_let_in() -> bool:
            client = stack.enter_context(socket.create_connection((HOST, port), TIMEOUT))
            client.settimeout(0.5)
            try:
                return bool(client.recv(1))
            except TimeoutError:
                return True
            except ConnectionError:
                return False

        assert [is_let_in() for _ in range(5)] == [True] * 3 + [False] * 2
        assert limited(node, "connections_per_address") == 2
        assert node.stats()["refused.address"] == 2
        if way == "http":
            assert is_open(node, stack), "MQTT has a count of its own"
        else:
            port = node.port
            assert not is_let_in(), "all ways of MQTT have one"
    with ExitStack() as stack:
        port = int(str(getattr(node, way)).rpartition(":")[2])
        wait_for(is_let_in, "them to be gone")


@pytest.mark.parametrize("key", ["node.trusted_proxies", "http.trusted_proxies"])
def test_a_proxy_has_no_limits(make_node: MakeNode, key: str) -> None:
    node = make_node(
        "limits.connections_per_address=2", "limits.connects_per_second=1", f"{key}=[127.0.0.0/8]"
    ).start()
    alice = node.user("alice")
    with Crowd() as crowd:
        assert [crowd.come(node, alice, f"d{n}") for n in range(20)] == [ACCEPTED] * 20
    assert not [name for name in node.stats() if name.startswith("limited.")]


def test_who_connects_too_fast_waits(make_node: MakeNode) -> None:
    node = make_node("limits.connects_per_second=5", "limits.connect_timeout=2.0").start()
    alice = node.user("alice")
    with ExitStack() as stack:
        # 50 at once, ten more within the two seconds that a connection may wait, and the others not at all.
        token = node.token(alice)
        clients = [stack.enter_context(RawClient(node.port)) for _ in range(100)]
        for number, client in enumerate(clients):
            try:
                client.send(connect(f"d{number}", alice, token))
            except ConnectionError:
                continue  # it was closed at once
        answers = [client.receive() for client in clients]
        accepted = [answer for answer in answers if answer is not None]
        assert all(answer.body[1] == ACCEPTED for answer in accepted)
        assert None not in answers[:55]
        assert None in answers
        assert limited(node, "connects_per_second") >= 100 - len(accepted)
        assert node.stats()["clients_connected"] == len(accepted)


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
    assert send(service) < 2
    assert limited(node, "publishes_per_second") == 0
    # 40 at once. The last batch may be owed.
    assert send(user) > (100 - 40 - size) / 20 * 0.9
    assert limited(node, "publishes_per_second") > 0
    assert send(service) < 2


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


# --- retained messages -------------------------------------------------------------------


def retain(device: Device, topic: str, payload: str) -> str | None:
    """Publish with RETAIN; returns the code of a refusal."""
    before = len(device.told("error"))
    device.client.send(publish(topic, payload.encode(), 1, 60_001, retain=True))
    device.until(lambda: 60_001 in device._acknowledged, "the PUBACK")
    device._acknowledged.discard(60_001)
    errors = device.told("error")[before:]
    return str(errors[0]["code"]) if errors else None


def test_retained_messages_in_number(make_node: MakeNode) -> None:
    node = make_node("limits.retained_messages=3", OPEN).start()
    with Device(node, node.user("alice")) as alice:
        assert [retain(alice, f"open/{n}", "x") for n in range(5)] == [None, None, None, "quota", "quota"]
        assert retain(alice, "open/0", "another") is None
        assert retain(alice, "open/1", "") is None
        assert retain(alice, "open/3", "x") is None
        assert retain(alice, "open/4", "x") == "quota"
        assert limited(node, "retained_messages") == 3
        alice.publish(f"users/{alice.user}/presence", "away")
    node.stop()
    node.start()
    with Device(node, alice.user) as alice:
        assert retain(alice, "open/4", "x") == "quota"
        assert retain(alice, "open/0", "") is None
        assert retain(alice, "open/4", "x") is None


def test_retained_messages_in_bytes(make_node: MakeNode) -> None:
    node = make_node("limits.retained_bytes=1000", OPEN).start()
    will = ("open/will", b"x" * 900, 1, True)
    with Device(node, node.user("alice")) as alice, RawClient(node.port) as last:
        assert retain(alice, "open/0", "x" * 500) is None
        assert retain(alice, "open/1", "x" * 500) == "quota"
        assert retain(alice, "open/0", "x" * 400) is None
        assert retain(alice, "open/1", "x" * 500) is None
        last.login("last", alice.user, node.token(alice.user), will=will)
    wait_for(lambda: limited(node, "retained_bytes") == 2, "the will to be refused")


def test_retained_messages_of_a_user(make_node: MakeNode) -> None:
    node = make_node(
        "limits.retained_messages_per_user=2", "limits.retained_bytes_per_user=1000", OPEN
    ).start()
    with Device(node, node.user("alice")) as alice, Device(node, node.user("bob")) as bob:
        assert [retain(alice, f"open/{n}", "x") for n in range(3)] == [None, None, "quota"]
        assert retain(alice, "open/0", "x" * 1000) == "quota"
        assert [retain(bob, f"open/{n}", "x") for n in range(1, 4)] == [None, None, "quota"]
        assert retain(alice, "open/4", "x") is None, "bob has replaced one of hers"
        assert limited(node, "retained_messages_per_user") == 2
        assert limited(node, "retained_bytes_per_user") == 1
    node.kill()
    node.start()
    with Device(node, alice.user) as alice:
        assert retain(alice, "open/5", "x") == "quota", "whose they are is stored"


# --- readers that do not read ------------------------------------------------------------


class Silent(RawClient):
    """A client whose system takes little in its stead while it does not read."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect((HOST, port))
        self._buffer = b""


@pytest.mark.parametrize(("topic", "qos"), [("users/{}/inbox", 0), ("users/{}/inbox", 1), ("open/a", 0)])
def test_who_never_reads_takes_a_share_of_the_memory(make_node: MakeNode, topic: str, qos: int) -> None:
    node = make_node(
        "limits.outboxes_bytes=16777216", "limits.max_inflight=1000", "limits.presence_grace=0", OPEN
    ).start()
    alice, bob = node.user("alice"), node.user("bob")
    topic = topic.format(alice)
    with ExitStack() as stack, Device(node, bob) as other:
        token = node.token(alice)
        for number in range(150):
            silent = stack.enter_context(Silent(node.port))
            silent.login(f"d{number}", alice, token)
            silent.send(subscribe(1, (topic, qos)))
            silent.expect(9)
        before = node.rss_kb()
        # 600 MB in all, of which a node without a budget keeps more than 1 MiB for each.
        for _ in range(250):
            other.publish(topic, "x" * 16_000)
        assert limited(node, "outboxes_bytes") >= 100
        assert node.stats()["outboxes_bytes"] < 24 * 1024 * 1024
        assert node.rss_kb() - before < 96 * 1024
        # Who reads notices nothing.
        other.say(bob, "still there")
        other.until(lambda: [e["content"] for e in other.inbox][-1:] == ["still there"], "a message")
        if topic != "open/a":
            with Device(node, alice) as reader:
                reader.say(alice, "and here")
                reader.until(lambda: [e["content"] for e in reader.inbox][-1:] == ["and here"], "a message")


# --- what is shipped ---------------------------------------------------------------------


def test_a_heavy_user_meets_no_limit(node: Node) -> None:
    alice = node.user("alice")
    before = {name: count for name, count in node.stats().items() if name.startswith("limited.")}
    with Crowd() as crowd:
        assert [crowd.come(node, alice, f"d{n}", clean=n % 2 == 0) for n in range(50)] == [ACCEPTED] * 50
    with Device(node, alice) as device:
        replies = device.together("messages.sync", [{}] * 200)
        assert all(reply["ok"] for reply in replies)
        for _ in range(30):
            device.rpc("groups.create")
        device.client.send(b"".join(publish(f"users/{alice}/inbox", b"x") for _ in range(2000)))
        device.settle()
    after = {name: count for name, count in node.stats().items() if name.startswith("limited.")}
    assert after == before
