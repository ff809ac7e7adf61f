"""MQTT 3.1.1 as any broker speaks it: on open topics, by anonymous clients too."""

import itertools
import json
from collections.abc import Callable

import pytest

from broker.wire.encoder import puback, pubcomp, pubrec, pubrel
from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, packet, publish, subscribe

_topics = itertools.count(1)


@pytest.fixture
def topic() -> str:
    """An open topic nobody else uses."""
    return f"open/{next(_topics)}"


def subscriber(node: Node, topic_filter: str, qos: int, **options: object) -> RawClient:
    client = RawClient(node.port)
    client.login(f"sub-{next(_topics)}", **options)  # type: ignore[arg-type]
    client.send(subscribe(1, (topic_filter, qos)))
    assert client.expect(9).body == bytes((0, 1, qos))
    return client


def complete(client: RawClient, data: bytes, qos: int, packet_id: int = 1) -> None:
    """Send a PUBLISH and go through its acknowledgements."""
    client.send(data)
    if qos == 1:
        assert client.expect(4).body == packet_id.to_bytes(2, "big")
    elif qos == 2:
        assert client.expect(5).body == packet_id.to_bytes(2, "big")
        client.send(pubrel(packet_id))
        assert client.expect(7).body == packet_id.to_bytes(2, "big")


def take(client: RawClient) -> tuple[str, bytes, int, bool]:
    """The next message with all acknowledgements: (topic, payload, QoS, retain)."""
    received = client.expect(3)
    qos = received.first >> 1 & 3
    size = int.from_bytes(received.body[:2], "big")
    name, rest = received.body[2 : 2 + size].decode(), received.body[2 + size :]
    if qos:
        packet_id, rest = int.from_bytes(rest[:2], "big"), rest[2:]
        if qos == 1:
            client.send(puback(packet_id))
        else:
            client.send(pubrec(packet_id))
            assert client.expect(6).body == packet_id.to_bytes(2, "big")
            client.send(pubcomp(packet_id))
    return name, rest, qos, bool(received.first & 1)


@pytest.mark.parametrize(("published", "subscribed"), list(itertools.product((0, 1, 2), repeat=2)))
def test_delivered_qos_is_the_lower(node: Node, topic: str, published: int, subscribed: int) -> None:
    with subscriber(node, topic, subscribed) as reader, RawClient(node.port) as writer:
        writer.login("w")
        complete(writer, publish(topic, b"x", published, published and 1), published)
        assert take(reader) == (topic, b"x", min(published, subscribed), False)


@pytest.mark.parametrize(("published", "subscribed"), list(itertools.product((0, 1, 2), repeat=2)))
def test_delivered_qos_of_messages(node: Node, published: int, subscribed: int) -> None:
    user = node.user()
    inbox = f"users/{user}/inbox"
    with RawClient(node.port) as client:
        client.login("c", user, password(user))
        client.send(subscribe(1, (inbox, subscribed)))
        client.expect(9)
        with RawClient(node.port) as writer:
            writer.login("w", user, password(user))
            complete(writer, publish(inbox, b"x", published, published and 1), published)
        name, payload, qos, _ = take(client)
        assert (name, qos) == (inbox, min(published, subscribed))
        assert json.loads(payload)["content"] == "x"


def test_qos_2_is_stored_once_when_sent_again(node: Node) -> None:
    user = node.user()
    data = publish(f"users/{user}/inbox", b"x", 2, 5)
    again = bytes((data[0] | 8,)) + data[1:]
    with RawClient(node.port) as client:
        client.login("c", user, password(user))
        for each in (data, again, again):
            client.send(each)
            client.expect(5)
        client.send(pubrel(5))
        client.expect(7)
        assert len(node.history(f"p:{user}:{user}")) == 1
        complete(client, data, 2, 5)  # the id is free again: a new message
    assert len(node.history(f"p:{user}:{user}")) == 2


def test_qos_2_sent_again_after_a_reconnect_is_stored_once(node: Node) -> None:
    user = node.user()
    data = publish(f"users/{user}/inbox", b"x", 2, 5)
    for attempt in range(2):
        with RawClient(node.port) as client:
            assert client.login("c", user, password(user), clean=False) == bool(attempt)
            client.send(bytes((data[0] | 8 * attempt,)) + data[1:])  # with DUP [MQTT-3.3.1-1]
            client.expect(5)
    assert len(node.history(f"p:{user}:{user}")) == 1


def test_wildcards(node: Node) -> None:
    base = f"open/{next(_topics)}"
    with (
        subscriber(node, f"{base}/+/c", 0) as plus,
        subscriber(node, f"{base}/#", 0) as rest,
        RawClient(node.port) as writer,
    ):
        writer.login("w")
        for name in (base, f"{base}/b", f"{base}/b/c", f"{base}/b/c/d"):
            writer.send(publish(name, b"x"))
        assert [take(rest)[0] for _ in range(4)] == [base, f"{base}/b", f"{base}/b/c", f"{base}/b/c/d"]
        assert take(plus)[0] == f"{base}/b/c"


def test_overlapping_subscriptions_deliver_once_at_the_higher_qos(node: Node, topic: str) -> None:
    with RawClient(node.port) as client:
        client.login("c")
        client.send(subscribe(1, (topic, 0), (f"{topic}/#", 1)))
        client.expect(9)
        complete(client, publish(topic, b"1", 1, 1), 0)
        assert take(client)[1:3] == (b"1", 1)
        client.expect(4)
        client.send(packet(0xC0))
        assert client.receive() == (0xD0, b"")  # nothing else came in between


def test_unsubscribe(node: Node, topic: str) -> None:
    with subscriber(node, topic, 0) as client:
        client.send(packet(0xA2, b"\0\2" + len(topic).to_bytes(2, "big") + topic.encode()))
        assert client.expect(11).body == b"\0\2"
        client.send(publish(topic, b"x") + packet(0xC0))
        assert client.receive() == (0xD0, b"")


def test_retained(node: Node, topic: str) -> None:
    with RawClient(node.port) as writer, subscriber(node, topic, 1) as early:
        writer.login("w")
        complete(writer, publish(topic, b"first", 1, 1, retain=True), 1)
        complete(writer, publish(topic, b"second", 1, 2, retain=True), 1, 2)
        assert [take(early)[1:] for _ in range(2)] == [(b"first", 1, False), (b"second", 1, False)]
        with subscriber(node, f"{topic}/#", 0) as late:
            assert take(late) == (topic, b"second", 0, True)
        complete(writer, publish(topic, b"", 1, 3, retain=True), 1, 3)
        assert take(early)[1] == b""
        with subscriber(node, topic, 0) as later:
            later.send(packet(0xC0))
            assert later.receive() == (0xD0, b"")


def test_retained_survives_a_kill(make_node: Callable[..., Node]) -> None:
    node = make_node(
        'topics.open=["open/#"]', "plugins.plugins.auth.UserAuthPlugin.allow_anonymous=true"
    ).start()
    with RawClient(node.port) as writer:
        writer.login("w")
        for number in range(250):  # more than is read at once
            complete(writer, publish(f"open/{number:03}", b"kept", 1, number + 1, retain=True), 1, number + 1)
    node.kill()
    node.start()
    with subscriber(node, "open/#", 1) as reader:
        assert [take(reader)[0] for _ in range(250)] == [f"open/{number:03}" for number in range(250)]


def test_retain_flag_on_a_log_is_ignored(node: Node) -> None:
    user = node.user()
    with RawClient(node.port) as client:
        client.login("c", user, password(user))
        complete(client, publish(f"users/{user}/inbox", b"x", 1, 1, retain=True), 1)
        client.send(subscribe(1, (f"users/{user}/inbox", 1)))
        client.expect(9)
        client.send(packet(0xC0))
        assert client.receive() == (0xD0, b"")


def test_will_fires_unless_disconnected(node: Node, topic: str) -> None:
    with subscriber(node, topic, 1) as reader:
        for polite in (True, False):
            with RawClient(node.port) as client:
                client.login("c", will=(topic, b"polite" if polite else b"gone", 1, True))
                if polite:
                    client.send(packet(0xE0))
                    assert client.is_closed()
        assert take(reader)[1] == b"gone"
        with subscriber(node, topic, 1) as late:
            assert take(late)[1:] == (b"gone", 1, True)


def test_will_fires_on_protocol_error_and_keep_alive(node: Node, topic: str) -> None:
    with subscriber(node, topic, 0) as reader, RawClient(node.port) as broken, RawClient(node.port) as silent:
        broken.login("broken", will=(topic, b"broken", 0, False))
        broken.send(packet(0xF0))
        assert take(reader)[1] == b"broken"
        silent.login("silent", keep_alive=1, will=(topic, b"silent", 0, False))
        assert silent.is_closed()
        assert take(reader)[1] == b"silent"


def test_ping_keeps_a_connection_alive(node: Node) -> None:
    with RawClient(node.port) as client, RawClient(node.port) as silent:
        client.login("pinging", keep_alive=1)
        silent.login("silent", keep_alive=1)
        silent.socket.settimeout(0.3)
        while True:  # until the silent one is out
            client.send(packet(0xC0))
            client.expect(13)
            try:
                assert silent.is_closed()
                break
            except TimeoutError:
                continue
        client.send(packet(0xC0))
        client.expect(13)


def test_take_over(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with RawClient(node.port) as first, RawClient(node.port) as second, RawClient(node.port) as other:
        first.login("same", alice, password(alice))
        other.login("same", bob, password(bob))  # another user's session of that name: left alone
        second.login("same", alice, password(alice))
        assert first.is_closed()
        for client in (second, other):
            client.send(packet(0xC0))
            client.expect(13)


def test_sessions_belong_to_a_user(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with RawClient(node.port) as client:
        assert not client.login("same", alice, password(alice), clean=False)
        client.send(subscribe(1, (f"users/{alice}/#", 1)))
        client.expect(9)
    with RawClient(node.port) as client:
        assert not client.login("same", bob, password(bob), clean=False)
    with RawClient(node.port) as client:
        assert client.login("same", alice, password(alice), clean=False)
    with RawClient(node.port) as client:
        assert not client.login("same", alice, password(alice), clean=True)
    with RawClient(node.port) as client:
        assert not client.login("same", alice, password(alice), clean=False)


def test_queue_of_a_session_that_is_away_is_bounded(make_node: Callable[..., Node]) -> None:
    node = make_node(
        'topics.open=["open/#"]',
        "plugins.plugins.auth.UserAuthPlugin.allow_anonymous=true",
        "limits.max_queued=50",
    ).start()
    with RawClient(node.port) as reader:
        reader.login("r", clean=False)
        reader.send(subscribe(1, ("open/#", 1)))
        reader.expect(9)
    wait_for(lambda: node.stats()["clients_connected"] == 0, "the reader to be away")
    with RawClient(node.port) as writer:
        writer.login("w")
        for number in range(1, 81):
            complete(writer, publish("open/x", b"%d" % number, 1, number), 1, number)
        writer.send(publish("open/x", b"QoS 0 is not queued") + packet(0xC0))
        writer.expect(13)
    assert node.stats()["dropped.queue_full"] == 30
    node.kill()  # what was acknowledged was stored
    node.start()
    with RawClient(node.port) as reader:
        assert reader.login("r", clean=False)
        assert [int(take(reader)[1]) for _ in range(50)] == list(range(31, 81))
        reader.send(packet(0xC0))
        assert reader.receive() == (0xD0, b"")


@pytest.mark.parametrize("away", [True, False])
def test_queue_of_a_session_is_bounded_in_bytes(make_node: Callable[..., Node], away: bool) -> None:
    node = make_node(
        'topics.open=["open/#"]',
        "plugins.plugins.auth.UserAuthPlugin.allow_anonymous=true",
        "limits.max_queued_bytes=100000",
        "limits.max_inflight=1",
    ).start()
    with RawClient(node.port) as reader, RawClient(node.port) as writer:
        reader.login("r", clean=False)
        reader.send(subscribe(1, ("open/#", 1)))
        reader.expect(9)
        if away:
            reader.send(packet(0xE0))
            wait_for(lambda: node.stats()["clients_connected"] == 0, "the reader to be away")
        writer.login("w")
        for number in range(1, 41):
            complete(writer, publish("open/x", b"%020000d" % number, 1, number), 1, number)
        # Four of 20,000 bytes fit. The one that is in flight to a reader who is there is not in the queue.
        assert node.stats()["dropped.queue_full"] == 40 - 4 - (not away)
        if away:
            node.kill()
            node.start()
    with RawClient(node.port) as reader:
        assert reader.login("r", clean=False)
        expected = [37, 38, 39, 40] if away else [1, 37, 38, 39, 40]
        assert [int(take(reader)[1][-4:]) for _ in expected] == expected


def test_client_ids(node: Node) -> None:
    with RawClient(node.port) as one, RawClient(node.port) as two:
        one.login("")
        two.login("")
    with RawClient(node.port) as client:
        client.send(packet(0x10, b"\0\4MQTT\4\0\0\0\0\0"))  # no id, and a session to keep
        assert client.expect(2).body == b"\0\2"
        assert client.is_closed()


def test_slow_reader_costs_bounded_memory_and_loses_no_message(make_node: Callable[..., Node]) -> None:
    """A reader that stops reading its socket falls back to the log, and has it all when it goes on."""
    node = make_node("limits.outbox_bytes=65536").start()
    alice, bob = node.user("alice"), node.user("bob")
    inbox = f"users/{bob}/inbox"
    count, size = 600, 100_000
    with RawClient(node.port) as slow, RawClient(node.port) as writer:
        slow.login("slow", bob, password(bob))
        slow.send(subscribe(1, (inbox, 0)))
        slow.expect(9)
        writer.login("w", alice, password(alice))
        before = node.rss_kb()
        for number in range(1, count + 1):
            complete(writer, publish(inbox, b"%06d" % number + b"x" * size, 1, number), 1, number)
        assert node.rss_kb() - before < 30 * 1024  # of 60 MB that were sent
        numbers = [int(json.loads(slow.message()[1])["content"][:6]) for _ in range(count)]
    assert numbers == list(range(1, count + 1))
