"""What is refused, how it is told, and that everybody else is undisturbed."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from broker.wire.encoder import puback, pubrel
from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, connect, packet, publish, subscribe, text


class Bystander:
    """A pair of clients that chat all the while; at the end nothing may be missing."""

    def __init__(self, node: Node) -> None:
        self.user = node.user("bystander")
        self.client = RawClient(node.port)
        self.client.login("bystander", self.user, password(self.user))
        self.client.send(subscribe(1, (f"users/{self.user}/inbox", 1)))
        self.client.expect(9)
        self.sent = 0

    def close(self) -> None:
        self.client.socket.close()

    def check(self) -> None:
        """A message to oneself goes through: its PUBACK and itself are what comes next. (A reader
        that is catching up may find it in the log before its sender is told.)"""
        self.sent += 1
        self.client.send(publish(f"users/{self.user}/inbox", b"still here", 1, self.sent))
        received = [self.client.receive(), self.client.receive()]
        assert None not in received
        assert sorted(packet.type for packet in received if packet) == [3, 4]
        (message,) = (packet.body for packet in received if packet and packet.type == 3)
        size = int.from_bytes(message[:2], "big")
        assert json.loads(message[size + 4 :])["offset"] == self.sent
        self.client.send(puback(int.from_bytes(message[size + 2 : size + 4], "big")))


@pytest.fixture
def bystander(node: Node) -> Iterator[Bystander]:
    with closing(Bystander(node)) as watching:
        watching.check()
        yield watching
        watching.check()


def refused(node: Node, user: str | None, secret: str | None, **options: object) -> int:
    """CONNECT; returns the code it is refused with. The connection must be closed after it."""
    with RawClient(node.port) as client:
        client.send(connect("refused", user, secret, **options))  # type: ignore[arg-type]
        code = client.expect(2).body[1]
        assert client.is_closed()
        return code


def test_wrong_password_unknown_user_and_token(node: Node, bystander: Bystander) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    assert refused(node, alice, "wrong") == 5
    assert refused(node, alice, None) == 5
    assert refused(node, alice, "") == 5
    assert refused(node, "nobody-of-that-name", "x") == 5
    assert refused(node, "not/an id", "x") == 5
    assert refused(node, bob, node.token(alice)) == 5
    assert refused(node, alice, node.token(alice)[:-3] + "abc") == 5
    with RawClient(node.port) as client:
        client.login("token", alice, node.token(alice))


def test_anonymous_is_refused_by_default(make_node: Callable[..., Node]) -> None:
    assert refused(make_node().start(), None, None) == 5


def test_disabled_user_is_out_and_stays_out(node: Node, bystander: Bystander) -> None:
    alice = node.user("alice")
    token = node.token(alice)
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))
        node.call("SetUserDisabled", pb.SetUserDisabledRequest(user_id=alice, disabled=True))
        assert client.is_closed()
    assert refused(node, alice, password(alice)) == 5
    assert refused(node, alice, token) == 5
    node.call("SetUserDisabled", pb.SetUserDisabledRequest(user_id=alice, disabled=False))
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))


def test_expired_token_ends_the_connection(node: Node) -> None:
    alice = node.user("alice")
    token = node.token(alice, ttl=2)
    with RawClient(node.port) as client:
        client.login("c", alice, token)
        assert client.is_closed()
    assert refused(node, alice, token) == 5


def test_subscriptions_that_could_never_match(node: Node, bystander: Bystander) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(bob)
    wanted = [
        (f"users/{bob}/inbox", 0x80),
        (f"users/{bob}/#", 0x80),
        (f"users/{bob}/+", 0x80),
        (f"groups/{group}", 0x80),
        (f"groups/{group}/typing", 0x80),
        ("groups/no-such-group", 0x80),
        ("$SYS/#", 0x80),
        ("secret/things", 0x80),
        ("secret/#", 0x80),
        (f"users/{alice}/rpc/#", 0x80),
        (f"users/{alice}/#", 1),
        ("groups/+", 1),
        ("groups/#", 1),
        ("users/+/presence", 1),
        ("users/+/inbox", 1),
        ("open/x", 1),
        ("#", 1),
    ]
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))
        client.send(subscribe(7, *((topic_filter, 1) for topic_filter, _ in wanted)))
        codes = list(client.expect(9).body[2:])
    assert codes == [code for _, code in wanted]


def test_widest_subscription_gets_nothing_of_others(node: Node, bystander: Bystander) -> None:
    alice, bob, eve = node.user("alice"), node.user("bob"), node.user("eve")
    group = node.group(alice, bob)
    with RawClient(node.port) as spy, RawClient(node.port) as writer:
        spy.login("spy", eve, password(eve))
        spy.send(subscribe(1, ("#", 1), ("users/+/inbox", 1), ("groups/#", 1), ("users/+/presence", 1)))
        spy.expect(9)
        writer.login("writer", alice, password(alice))
        for number, topic in enumerate((f"users/{bob}/inbox", f"groups/{group}"), 1):
            writer.send(publish(topic, b"private", 1, number))
            writer.expect(4)
        writer.send(publish(f"users/{alice}/presence", b"busy", 1, 3))
        writer.expect(4)
        writer.send(publish(f"users/{eve}/inbox", b"for eve", 1, 4))
        writer.expect(4)
        topics = []
        while not topics or topics[-1] != f"users/{eve}/inbox":
            topics.append(spy.message()[0])
    topics = [topic for topic in topics if not topic.startswith("open/")]  # open to her as to anybody
    assert set(topics) <= {f"users/{eve}/inbox", f"users/{eve}/presence"}


def test_refused_publishes_are_told_by_an_event(node: Node, bystander: Bystander) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(bob)
    refusals = [
        (f"groups/{group}", "not_member", 0x87),
        ("groups/no-such-group", "not_member", 0x87),
        ("users/nobody-there/inbox", "not_found", 0x87),
        (f"users/{bob}/presence", "not_authorized", 0x87),
        (f"users/{bob}/rpc/messages.sync", "not_authorized", 0x87),
        (f"users/{alice}/events", "not_authorized", 0x87),
        (f"users/{alice}/replies", "not_authorized", 0x87),
        ("$SYS/broker/version", "not_authorized", 0x87),
        ("secret/things", "unknown_topic", 0x87),
        (f"users/{alice}/presence", "invalid_payload", 0x99),
    ]
    body = b'{"content": "x", "client_msg_id": "c-9"}'
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))
        client.send(subscribe(1, (f"users/{alice}/events", 1)))
        client.expect(9)
        for number, (topic, code, reason) in enumerate(refusals, 1):
            client.send(publish(topic, body, 1, number))
            event = json.loads(client.message()[1])
            detail = event.pop("detail")
            assert detail
            assert event == {
                "event": "error",
                "code": code,
                "reason_code": reason,
                "topic": topic,
                "client_msg_id": "c-9",
            }
            assert client.expect(4).body == number.to_bytes(2, "big")  # MQTT 3.1.1 has no other answer


@pytest.mark.parametrize("qos", [1, 2])
def test_bad_payload_is_refused_at_any_qos(node: Node, qos: int) -> None:
    alice = node.user("alice")
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))
        client.send(subscribe(1, (f"users/{alice}/#", 1)))
        client.expect(9)
        client.send(publish(f"users/{alice}/inbox", b'{"content": 1, "client_msg_id": 5}', qos, 1))
        codes = []
        kinds = set()
        while len(kinds) < 2:
            received = client.receive()
            assert received is not None
            if received.type == 3 and b"/events" in received.body:
                codes.append(json.loads(received.body[received.body.index(b"{") :])["code"])
            if received.type != 3 or b"/events" in received.body:
                kinds.add(received.type)
        assert codes == ["invalid_payload"]
        if qos == 2:
            client.send(pubrel(1))
            while (received := client.receive()) is not None and received.type == 3:
                pass
            assert received is not None
            assert received.type == 7
    assert node.history(f"p:{alice}:{alice}") == []


def test_will_on_anothers_topic(node: Node, bystander: Bystander) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    will = (f"users/{bob}/presence", b"offline", 1, True)
    assert refused(node, alice, password(alice), will=will) == 5


def test_will_right_lost_before_it_fires(node: Node, bystander: Bystander) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(bob, alice)
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice), will=(f"groups/{group}", b"gone", 1, False))
        node.call("RemoveGroupMembers", pb.GroupMembersRequest(group_id=group, user_ids=[alice]))
    wait_for(
        lambda: "refused" in node.log() and f"{alice} publishing to 'groups/{group}'" in node.log(),
        "the refusal",
    )
    assert {entry["type"] for entry in node.history(f"g:{group}")} == {"system"}


PROTOCOL_ERRORS = {
    "wildcard in a topic name": packet(0x30, text("users/+/inbox") + b"x"),
    "a hash in a topic name": packet(0x30, text("groups/#") + b"x"),
    "malformed UTF-8": packet(0x30, text(b"users/\xff/inbox") + b"x"),
    "an encoded surrogate": packet(0x30, text(b"open/\xed\xa0\x80") + b"x"),
    "U+0000": packet(0x30, text("open/\0") + b"x"),
    "QoS 3": packet(0x36, text("open/x") + b"\0\1x"),
    "packet id 0": packet(0x32, text("open/x") + b"\0\0x"),
    "five bytes of remaining length": b"\x30\xff\xff\xff\xff\xff\x01",
    "a second CONNECT": connect("again"),
    "an empty SUBSCRIBE": packet(0x82, b"\0\1"),
    "reserved flags": packet(0x80, b"\0\1" + text("open/x") + b"\0"),
    "a server's packet": packet(0xD0),
    "a topic longer than its packet": packet(0x30, b"\xff\xffab"),
    "a 10 MB packet": b"\x30\x80\xad\xe2\x04" + text("open/x") + b"x" * 100,
}


@pytest.mark.parametrize("name", PROTOCOL_ERRORS)
def test_protocol_errors_end_the_connection(node: Node, bystander: Bystander, name: str) -> None:
    alice = node.user("alice")
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))
        client.send(PROTOCOL_ERRORS[name])
        assert client.is_closed()
    lines = [line for line in node.log().splitlines() if f"user {alice}" in line and "protocol error" in line]
    assert len(lines) == 1, node.log()


@pytest.mark.parametrize("data", [packet(0x30, text("open/x")), packet(0xC0), b"GET / HTTP/1.1\r\n\r\n"])
def test_anything_before_connect_ends_the_connection(node: Node, data: bytes) -> None:
    with RawClient(node.port) as client:
        client.send(data)
        assert client.is_closed()


def test_connect_larger_than_allowed_before_authentication(node: Node, bystander: Bystander) -> None:
    with RawClient(node.port) as client:
        client.send(connect("x", "u", "p" * 20_000))
        assert client.is_closed()


def test_protocol_version_not_spoken(node: Node) -> None:
    with RawClient(node.port) as client:
        client.send(packet(0x10, text("MQTT") + b"\x05\x02\0\0\0" + text("v5")))
        assert client.expect(2).body == b"\0\1"
        assert client.is_closed()


def test_half_a_connect_that_never_ends(make_node: Callable[..., Node]) -> None:
    node = make_node("limits.connect_timeout=1").start()
    with closing(Bystander(node)) as watching:
        with RawClient(node.port) as silent, RawClient(node.port) as half:
            half.send(connect("x", "u", "p")[:-3])
            assert half.is_closed()
            assert silent.is_closed()
        watching.check()


def test_flood_of_truncated_connections(node: Node, bystander: Bystander) -> None:
    whole = connect("x", "u", "p")
    for length in range(1, len(whole)):
        with RawClient(node.port) as client:
            client.send(whole[:length])
    bystander.check()


def test_no_traceback_in_the_log(node: Node, bystander: Bystander) -> None:
    """Runs last in this file, over all that the shared node was sent here."""
    assert "Traceback" not in node.log()


FORGED = "2026-01-01 00:00:00,000 WARNING broker.delivery.subscriptions: admin eve subscribed to $SYS"


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n"])
def test_client_id_writes_no_line_into_the_log(node: Node, separator: str) -> None:
    bob = node.user("bob")
    log = len(node.log())
    with RawClient(node.port) as client:
        client.login(f"x{separator}{FORGED}", bob, password(bob))
        client.send(publish("#", b""))  # a protocol error: the log says whose
        assert client.is_closed()
    lines = node.log()[log:].splitlines()
    assert any("admin eve" in line for line in lines)
    assert not [line for line in lines if line.startswith("2026-01-01")]


@pytest.mark.parametrize("topic", ["{}", "users/{}/presence", "groups/{}"])
def test_will_topic_writes_no_line_into_the_log(node: Node, topic: str) -> None:
    bob = node.user("bob")
    log = len(node.log())
    with RawClient(node.port) as client:
        will = (topic.format(f"x\n{FORGED}"), b"", 1, False)
        client.send(connect("c", bob, password(bob), will=will))
        assert client.expect(2).body[1] == 5
        assert client.is_closed()
    lines = node.log()[log:].splitlines()
    assert any("admin eve" in line for line in lines)
    assert not [line for line in lines if line.startswith("2026-01-01")]
