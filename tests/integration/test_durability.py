"""Acknowledged means stored: processes killed, stores that fail, readers that were away."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.wire.encoder import puback
from tests.integration.flood import Flood
from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, packet, publish, subscribe

MakeNode = Callable[..., Node]


def assert_gapless(node: Node, conversation: str, expected: set[str]) -> None:
    """The conversation holds each expected client_msg_id once, its seqs without a gap."""
    history = node.history(conversation)
    assert [entry["seq"] for entry in history] == list(range(1, len(history) + 1))
    ids = [entry["client_msg_id"] for entry in history]
    assert len(ids) == len(set(ids))
    assert expected <= set(ids)


def inbox_offsets(data_dir: Path, user: str) -> list[int]:
    with closing(sqlite3.connect(data_dir / "parley.db")) as database:
        rows = database.execute(
            "SELECT key & 0xffffffff FROM entries JOIN names ON names.id = key >> 32 "
            "WHERE name = ? ORDER BY key",
            (f"users/{user}/inbox",),
        )
        return [offset for (offset,) in rows]


def test_kill_in_a_flood_loses_nothing_acknowledged(make_node: MakeNode) -> None:
    node = make_node().start()
    alice, bob, carol = (node.user(name) for name in ("alice", "bob", "carol"))
    group = node.group(alice, bob, carol)
    floods = [
        Flood(node, alice, f"users/{bob}/inbox"),
        Flood(node, bob, f"users/{alice}/inbox"),
        Flood(node, carol, f"groups/{group}"),
    ]
    for flood in floods:
        flood.start()
    wait_for(lambda: all(len(flood.acknowledged) > 500 for flood in floods), "some acknowledgements")
    node.kill()
    for flood in floods:
        flood.join()
    node.start()
    private = {f"{alice}-{n}" for n in floods[0].acknowledged} | {
        f"{bob}-{n}" for n in floods[1].acknowledged
    }
    assert_gapless(node, ":".join(["p", *sorted((alice, bob))]), private)
    assert_gapless(node, f"g:{group}", {f"{carol}-{n}" for n in floods[2].acknowledged})
    for user in (alice, bob):
        offsets = inbox_offsets(node.data_dir, user)
        assert offsets == list(range(1, len(offsets) + 1))

    # And the log goes on where it was.
    with RawClient(node.port) as client:
        client.login("after", alice, password(alice))
        client.send(publish(f"groups/{group}", b"after", 1, 1))
        client.expect(4)
    history = node.history(f"g:{group}")
    assert history[-1]["content"] == "after"
    assert history[-1]["seq"] == len(history)


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


def test_cursor_survives_kill_and_unacknowledged_comes_again(make_node: MakeNode) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    inbox = f"users/{bob}/inbox"
    with RawClient(node.port) as reader, RawClient(node.port) as writer:
        reader.login("phone", bob, password(bob), clean=False)
        reader.send(subscribe(1, (inbox, 1)))
        reader.expect(9)
        writer.login("writer", alice, password(alice))
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
    with RawClient(node.port) as reader, RawClient(node.port) as writer:
        reader.login("phone", bob, password(bob), clean=False)
        reader.send(subscribe(1, (inbox, 1)))
        reader.expect(9)
        writer.login("writer", alice, password(alice))
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
