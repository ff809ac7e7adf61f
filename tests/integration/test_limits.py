"""What one user, and one address, may have. Whatever limit is reached is counted, and harms nobody else."""

import socket
from contextlib import ExitStack

import pytest

from tests.integration.im import Device
from tests.integration.limits_kit import (
    ACCEPTED,
    BUSY,
    CONNACK,
    OPEN,
    Crowd,
    MakeNode,
    knock,
    limited,
    visit,
)
from tests.integration.node import HOST, Node, wait_for
from tests.integration.raw import TIMEOUT, RawClient, connect, publish, subscribe
from tests.integration.websocket import WebSocketClient

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
