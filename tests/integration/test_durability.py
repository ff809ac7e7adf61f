"""Acknowledged means stored: stores that fail, readers that were away. For nodes killed under load, see
test_crash_rounds.py."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from broker.wire.encoder import puback
from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, packet, publish, subscribe

MakeNode = Callable[..., Node]


def test_away_while_ten_thousand_messages_came(make_node: MakeNode) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    inbox = f"users/{bob}/inbox"
    with RawClient(node.port) as reader:
        assert not reader.login("phone", bob, password(bob), clean=False)
        reader.send(subscribe(1, (inbox, 1)))
        assert reader.expect(9).body[2:] == b"\x01"
    with RawClient(node.port) as writer:
        writer.login("writer", alice, password(alice))
        send_all(writer, inbox, range(1, 10_001))
        memory = node.rss_kb()
        with RawClient(node.port) as reader:
            assert reader.login("phone", bob, password(bob), clean=False)
            offsets, contents = [], []
            for number in range(10_000):
                if number == 5_000:  # new ones while it catches up: the seam must not show
                    send_all(writer, inbox, range(10_001, 10_201))
                topic, payload, qos, _ = reader.message()
                assert (topic, qos) == (inbox, 1)
                entry = json.loads(payload)
                offsets.append(entry["offset"])
                contents.append(entry["content"])
            for _ in range(200):
                entry = json.loads(reader.message()[1])
                offsets.append(entry["offset"])
                contents.append(entry["content"])
            assert offsets == list(range(1, 10_201))
            assert contents == [f"message {n}" for n in range(1, 10_201)]
            assert node.rss_kb() - memory < 8 * 1024
            wait_for(lambda: node.stats()["sessions_catching_up"] == 0, "the reader to be live")
            send_all(writer, inbox, [10_201])
            assert json.loads(reader.message()[1])["content"] == "message 10201"


def send_all(client: RawClient, topic: str, numbers: object, window: int = 200) -> None:
    waiting = 0
    for number in numbers:  # type: ignore[attr-defined]
        client.send(publish(topic, f"message {number}".encode(), 1, number % 65535 + 1))
        waiting += 1
        if waiting == window:
            client.expect(4)
            waiting -= 1
    for _ in range(waiting):
        client.expect(4)


@contextmanager
def reader_and_writer(node: Node, alice: str, bob: str) -> Iterator[tuple[RawClient, RawClient]]:
    """Bob's phone, subscribed to his inbox, and a client of alice."""
    with RawClient(node.port) as reader, RawClient(node.port) as writer:
        reader.login("phone", bob, password(bob), clean=False)
        reader.send(subscribe(1, (f"users/{bob}/inbox", 1)))
        reader.expect(9)
        writer.login("writer", alice, password(alice))
        yield reader, writer


def test_cursor_survives_kill_and_unacknowledged_comes_again(make_node: MakeNode) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    inbox = f"users/{bob}/inbox"
    with reader_and_writer(node, alice, bob) as (reader, writer):
        send_all(writer, inbox, range(1, 11))
        got = [reader.message(acknowledge=False) for _ in range(10)]
        reader.send(b"".join(puback(packet_id) for *_, packet_id in got[:4]))
        wait_for(lambda: cursor(node.data_dir, inbox) == 4, "the cursor to be stored")
        node.kill()
    node.start()
    with RawClient(node.port) as reader:
        assert reader.login("phone", bob, password(bob), clean=False)
        assert [json.loads(reader.message()[1])["offset"] for _ in range(6)] == [5, 6, 7, 8, 9, 10]


def cursor(data_dir: Path, log: str) -> int | None:
    with closing(sqlite3.connect(data_dir / "parley.db")) as database:
        row = database.execute("SELECT offset FROM cursors WHERE log = ?", (log,)).fetchone()
    return None if row is None else int(row[0])


def test_redelivery_keeps_packet_ids_and_sets_dup(make_node: MakeNode) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    inbox = f"users/{bob}/inbox"
    with reader_and_writer(node, alice, bob) as (reader, writer):
        send_all(writer, inbox, range(1, 4))
        first = [reader.message(acknowledge=False) for _ in range(3)]
    with RawClient(node.port) as reader:
        reader.login("phone", bob, password(bob), clean=False)
        for before in first:
            packet = reader.expect(3)
            assert packet.first & 8, "DUP"
            assert packet.body.endswith(before[1])
            assert before[3].to_bytes(2, "big") in packet.body


def test_store_that_fails_acknowledges_nobody_until_it_works(make_node: MakeNode) -> None:
    """Another process holds the database's write lock: commits fail till it lets go."""
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    inbox = f"users/{bob}/inbox"
    reader, writer = RawClient(node.port), RawClient(node.port)
    reader.login("reader", bob, password(bob))
    reader.send(subscribe(1, (inbox, 1)))
    reader.expect(9)
    writer.login("writer", alice, password(alice))
    message = json.dumps({"content": "x", "client_msg_id": "once"}).encode()
    blocker = sqlite3.connect(node.data_dir / "parley.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        writer.send(publish(inbox, message, 1, 7))
        wait_for(lambda: "commits fail, publishers wait: database is locked" in node.log(), "a failed commit")
        writer.send(packet(0xC0))
        writer.expect(13)  # PINGRESP, and no PUBACK before it
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    writer.expect(4)
    entry = json.loads(reader.message()[1])  # the first thing the reader gets: nothing was pushed before
    assert (entry["seq"], entry["offset"], entry["client_msg_id"]) == (1, 1, "once")
    reader.socket.close()
    writer.socket.close()


@pytest.mark.parametrize("qos", [1, 2])
def test_duplicate_client_msg_id(node: Node, qos: int) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    inbox = f"users/{bob}/inbox"
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))
        client.send(subscribe(1, (f"users/{alice}/events", 1)))
        client.expect(9)
        ack = 4 if qos == 1 else 5
        for packet_id, content in ((1, "a"), (2, "a"), (3, "b")):
            body = json.dumps({"content": content, "client_msg_id": "same"}).encode()
            client.send(publish(inbox, body, qos, packet_id))
            if content == "b":
                event = json.loads(client.message()[1])
            client.expect(ack)
    assert event["event"] == "error"
    assert event["code"] == "duplicate_conflict"
    assert event["client_msg_id"] == "same"
    history = node.history(":".join(["p", *sorted((alice, bob))]))
    assert [entry["content"] for entry in history] == ["a"]
