"""Clients that break the rules: other clients notice nothing, memory stays bounded, no message is lost."""

import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from broker.wire.encoder import puback, pubrel
from tests.integration.node import HOST, Node, password, wait_for
from tests.integration.raw import TIMEOUT, RawClient, connect, packet, publish, subscribe, text

MakeNode = Callable[..., Node]

PINGREQ = packet(0xC0)
PINGRESP = b"\xd0\0"
REFUSED = 0x80
MB = 1024
"""In KiB, as memory is measured."""


def device(node: Node, user: str, *filters: str, name: str = "d", **options: object) -> RawClient:
    client = RawClient(node.port)
    client.login(name, user, password(user), **options)
    if filters:
        client.send(subscribe(1, *((topic_filter, 1) for topic_filter in filters)))
        assert REFUSED not in client.expect(9).body[2:]
    return client


def say(client: RawClient, topic: str, *contents: str) -> None:
    """Publish with QoS 1, each acknowledged."""
    for content in contents:
        client.send(publish(topic, content.encode(), 1, 1))
        client.expect(4)


def ping(client: RawClient) -> None:
    client.send(PINGREQ)
    client.expect(13)


def content(client: RawClient, *, acknowledge: bool = True) -> str:
    """The content of the next message."""
    return str(json.loads(client.message(acknowledge=acknowledge)[1])["content"])


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def wait_connected(node: Node, count: int) -> None:
    wait_for(lambda: node.stats()["clients_connected"] == count, f"{count} to be connected", 10)


def peak_kb(node: Node) -> int:
    """The peak memory of the node."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


# --- subscriptions -----------------------------------------------------------------------


@pytest.mark.parametrize("topic_filter", ["#", "x", "open/{}"])
def test_a_huge_subscribe_delays_nobody(node: Node, topic_filter: str) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    count = 18_000 if "{}" in topic_filter else 60_000
    filters = [(topic_filter.format(number), 0) for number in range(count)]
    with device(node, alice) as client, device(node, bob) as bystander:
        client.send(subscribe(7, *filters))
        slowest = 0.0
        while not select.select([client.socket], [], [], 0)[0]:
            begin = time.monotonic()
            ping(bystander)
            slowest = max(slowest, time.monotonic() - begin)
            time.sleep(0.001)
        assert slowest < 2
        answer = client.expect(9).body
        assert answer[:2] == b"\0\7"
        granted = {"#": count, "x": 0}.get(topic_filter, 1000)  # the limit is on different filters
        assert answer[2:] == bytes(granted) + bytes((REFUSED,)) * (count - granted)


def test_filters_beyond_the_limit_are_refused(make_node: MakeNode) -> None:
    node = make_node("limits.max_subscriptions=5", 'topics.open=["open/#"]').start()
    with device(node, node.user("alice")) as client:

        def codes(*filters: str) -> list[int]:
            client.send(subscribe(1, *((topic_filter, 1) for topic_filter in filters)))
            return list(client.expect(9).body[2:])

        assert codes(*names("open/", 7)) == [1] * 5 + [REFUSED] * 2
        assert codes("open/4", "open/5") == [1, REFUSED]  # one that is held may be had again
        client.send(packet(0xA2, b"\0\2" + text("open/0")))
        client.expect(11)
        assert codes("open/5", "open/6") == [1, REFUSED]
        assert node.stats()["subscriptions"] == 5


def test_deep_filters_and_topics_are_refused(node: Node) -> None:
    with device(node, node.user("alice")) as client:
        fits, too_deep = "open" + "/a" * 127, "open" + "/a" * 128
        huge = "open" + "/a" * 32_000 + "/+"
        client.send(subscribe(1, (fits, 1), (too_deep, 1), (huge, 1), (f"{fits}/#", 1)))
        assert list(client.expect(9).body[2:]) == [1, REFUSED, REFUSED, REFUSED]
        client.send(publish(too_deep, b"x", 1, 1))
        client.expect(4)
        client.send(publish(fits, b"x"))
        assert client.message()[0] == fits


# --- sessions that come back ---------------------------------------------------------------


def test_puback_sent_before_the_connack(make_node: MakeNode) -> None:
    node = make_node("limits.max_inflight=10").start()
    bob = node.user("bob")
    inbox = f"users/{bob}/inbox"
    with device(node, bob, name="writer") as writer:
        with device(node, bob, inbox, name="phone", clean=False) as phone:
            say(writer, inbox, *names("m", 5))
            packet_ids = [phone.message(acknowledge=False)[3] for _ in range(5)]
        wait_connected(node, 1)
        with RawClient(node.port) as phone:
            again = connect("phone", bob, password(bob), clean=False)
            phone.send(again + puback(packet_ids[2]) + puback(packet_ids[2]) + puback(9999))
            assert phone.expect(2).body == b"\1\0"
            say(writer, inbox, "after")
            got = [content(phone) for _ in range(5)]
            assert got == ["m0", "m1", "m3", "m4", "after"]
            ping(phone)
            say(writer, inbox, *names("n", 30))
            assert [content(phone) for _ in range(30)] == names("n", 30)
    assert node.stop() == 0
    assert "Traceback" not in node.log()


def fill_window(node: Node, bob: str, group: str, writer: RawClient, count: int) -> None:
    """Bob's phone gets as many messages of the group as its window takes, and goes with them."""
    with device(node, bob, f"users/{bob}/inbox", f"groups/{group}", name="phone", clean=False) as phone:
        say(writer, f"groups/{group}", *names("m", count))
        for _ in range(10):
            content(phone, acknowledge=False)
    wait_connected(node, 1)


def test_full_window_of_one_log_comes_again(make_node: MakeNode) -> None:
    node = make_node("limits.max_inflight=10").start()
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with device(node, alice) as writer:
        fill_window(node, bob, group, writer, 15)
        with device(node, bob, name="phone", clean=False) as phone:
            say(writer, f"users/{bob}/inbox", "private")
            got = [content(phone) for _ in range(16)]
        assert [one for one in got if one != "private"] == names("m", 15)
        assert "private" in got


def assert_whole_window(node: Node, writer: RawClient, bob: str, phone: RawClient) -> None:
    """All ten places of the window are free, and the node is at rest."""
    say(writer, f"users/{bob}/inbox", *names("n", 12))
    got = [phone.message(acknowledge=False) for _ in range(10)]
    assert [json.loads(payload)["content"] for _, payload, *_ in got] == names("n", 10)
    ping(phone)  # nothing more comes before an acknowledgement
    wait_for(lambda: is_at_rest(node), "the node to be at rest", 5)
    phone.send(b"".join(puback(packet_id) for *_, packet_id in got))
    assert [content(phone) for _ in range(2)] == ["n10", "n11"]
    wait_for(lambda: node.stats()["sessions_catching_up"] == 0, "the phone to be live", 5)


def is_at_rest(node: Node) -> bool:
    """Whether the node uses less than half of a CPU for a while."""
    before = cpu_seconds(node)
    time.sleep(0.3)
    return cpu_seconds(node) - before < 0.15


def cpu_seconds(node: Node) -> float:
    assert node.process is not None
    fields = Path(f"/proc/{node.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_unsubscribe_before_anything_is_sent_again(make_node: MakeNode) -> None:
    node = make_node("limits.max_inflight=10").start()
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with device(node, alice) as writer:
        fill_window(node, bob, group, writer, 15)
        with RawClient(node.port) as phone:
            unsubscribe = packet(0xA2, b"\0\7" + text(f"groups/{group}"))
            phone.send(connect("phone", bob, password(bob), clean=False) + unsubscribe)
            assert phone.expect(2).body == b"\1\0"
            got = [phone.expect_any() for _ in range(11)]  # what was begun is completed [MQTT-3.10.4-3]
            assert (0xB0, b"\0\7") in got
            again = [one for one in got if one.type == 3]
            assert len(again) == 10
            size = 2 + int.from_bytes(again[0].body[:2], "big")
            phone.send(b"".join(puback(int.from_bytes(one.body[size : size + 2], "big")) for one in again))
            assert_whole_window(node, writer, bob, phone)


def test_membership_lost_while_the_window_is_full(make_node: MakeNode) -> None:
    node = make_node("limits.max_inflight=10").start()
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    bobs = pb.GroupMembersRequest(group_id=group, user_ids=[bob])
    with device(node, alice) as writer:
        fill_window(node, bob, group, writer, 15)
        node.call("RemoveGroupMembers", bobs)
        with device(node, bob, name="phone", clean=False) as phone:
            assert_whole_window(node, writer, bob, phone)
            node.call("AddGroupMembers", bobs)
            say(writer, f"groups/{group}", "welcome back")
            assert "members_added" in content(phone)
            assert content(phone) == "welcome back"


# --- payloads and topics -------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ["presence", "typing", "inbox", "rpc/messages.sync"])
def test_deeply_nested_json(node: Node, leaf: str) -> None:
    bob = node.user("bob")
    topic = f"users/{bob}/{leaf}"
    log = len(node.log())
    with device(node, bob) as client:
        for packet_id, (before, after) in enumerate(
            [(b'{"status":"away","x":', b"}"), (b'{"typing":', b"}"), (b'{"content":', b"}"), (b"", b"")], 1
        ):
            deep = before + b"[" * 5000 + b"]" * 5000 + after
            client.send(publish(topic, deep, 1, packet_id))
            assert client.expect(4).body == packet_id.to_bytes(2, "big")
        ping(client)
    assert "Traceback" not in node.log()[log:]


def test_refused_topics_of_any_length_take_no_memory(make_node: MakeNode) -> None:
    node = make_node().start()
    with device(node, node.user("alice")) as client:
        log, memory = node.log_file.stat().st_size, node.rss_kb()
        for number in range(600):
            client.send(publish(f"no/{number:06}/" + "x" * 65_000, b""))
            if number % 100 == 99:
                ping(client)
                assert node.rss_kb() - memory < 50 * MB
        assert node.stats()["refused.unknown_topic"] == 600
        assert node.log_file.stat().st_size - log < 600 * 1024


# --- what a client does not take -----------------------------------------------------------


class SmallClient(RawClient):
    """A client that reads slowly, into a small buffer."""

    def __init__(self, port: int) -> None:
        self._buffer = b""
        self.socket = socket.socket()
        self.socket.settimeout(TIMEOUT)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 8000)
        self.socket.connect((HOST, port))


def test_pings_whose_answers_are_not_read_are_paused(make_node: MakeNode) -> None:
    node = make_node("limits.outbox_bytes=65536").start()
    alice = node.user("alice")
    with SmallClient(node.port) as client:
        client.login("d", alice, password(alice))
        memory = node.rss_kb()
        pings = PINGREQ * 100_000
        client.socket.setblocking(False)
        sent = 0
        while select.select([], [client.socket], [], 0.5)[1]:
            sent += client.socket.send(pings[sent % 2 :])
            assert sent < 30_000_000, "it reads on"
        assert node.rss_kb() - memory < 10 * MB
        client.socket.settimeout(TIMEOUT)
        expected = sent // 2 * 2
        answers = bytearray()
        while len(answers) < expected and (data := client.socket.recv(65536)):
            answers += data
        assert answers == PINGRESP * (expected // 2)
        client.send(PINGREQ[sent % 2 :])  # the rest of the last one, or another
        client.expect(13)


def history_calls(user: str, count: int) -> bytes:
    request = {"conversation_id": f"p:{user}:{user}", "limit": 100}
    return publish(f"users/{user}/rpc/messages.history", json.dumps(request).encode()) * count


def test_history_of_large_messages(make_node: MakeNode) -> None:
    node = make_node("limits.outbox_bytes=67108864", "limits.uncommitted_bytes=4194304").start()
    bob = node.user("bob")
    with device(node, bob) as client:
        large = "x" * 260_000
        client.send(b"".join(publish(f"users/{bob}/inbox", large.encode(), 1, n + 1) for n in range(100)))
        for _ in range(100):
            client.expect(4)
        client.send(subscribe(1, (f"users/{bob}/replies", 0)))
        client.expect(9)
        memory = node.rss_kb()
        client.send(history_calls(bob, 50))
        for _ in range(50):
            reply = json.loads(client.message()[1])
            assert [entry["seq"] for entry in reply["result"]["messages"]] == [100]
        assert max(peak_kb(node), node.rss_kb()) - memory < 60 * MB
        client.send(packet(0xA2, b"\0\2" + text(f"users/{bob}/replies")))
        client.expect(11)
        client.send(history_calls(bob, 1000))
        ping(client)
        begin = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - begin < 10
    assert "Traceback" not in node.log()


# --- ends ----------------------------------------------------------------------------------


def test_qos_2_packet_id_used_again_after_a_crash(make_node: MakeNode) -> None:
    node = make_node().start()
    bob = node.user("bob")
    inbox = f"users/{bob}/inbox"
    with device(node, bob, clean=False) as client:
        client.send(publish(inbox, b"one", 2, 1))
        client.expect(5)
        client.send(subscribe(2, (f"users/{bob}/replies", 0)))
        client.expect(9)  # the session is on disk now, with the packet id
        client.send(pubrel(1))
        client.expect(7)
        node.kill()
    node.start()
    with RawClient(node.port) as client:
        assert client.login("d", bob, password(bob), clean=False)
        client.send(publish(inbox, b"two", 2, 1))
        client.expect(5)
        client.send(pubrel(1))
        client.expect(7)
    assert [entry["content"] for entry in node.history(f"p:{bob}:{bob}")] == ["one", "two"]


class Chatter:
    """A client that publishes messages to another one by one, and acknowledges what it receives."""

    def __init__(self, node: Node, user: str, other: str) -> None:
        self.acknowledged = 0
        will = (f"users/{other}/inbox", b"will", 1, False)
        self._client = device(node, user, f"users/{user}/#", clean=False, will=will)
        self._message = publish(f"users/{other}/inbox", b"x", 1, 1)
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        self._client.send(self._message * 20)
        try:
            while (received := self._client.receive()) is not None:
                if received.type == 4:
                    self.acknowledged += 1
                    self._client.send(self._message)
                elif received.type == 3 and received.first & 6:
                    size = int.from_bytes(received.body[:2], "big")
                    self._client.send(puback(int.from_bytes(received.body[2 + size : 4 + size], "big")))
        except OSError:
            return

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._client.socket.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_under_load(make_node: MakeNode, number: int) -> None:
    node = make_node().start()
    users = [node.user() for _ in range(4)]
    chatters = [Chatter(node, user, users[index - 1]) for index, user in enumerate(users)]
    for chatter in chatters:
        chatter.start()
    wait_for(lambda: all(chatter.acknowledged > 100 for chatter in chatters), "some messages")
    assert node.stop(number) == 0
    for chatter in chatters:
        chatter.join()
    assert "Traceback" not in node.log()
