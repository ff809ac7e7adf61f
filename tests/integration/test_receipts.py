"""Receipts: `delivered` by a device's PUBACK, `read` by its call. They only move forward."""

from tests.integration.im import Device, assert_same, devices, private
from tests.integration.node import Node


def test_delivered_by_puback(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, a2, b1, _):
        b1.rpc("users.update", who_sees_presence="everyone")
        a1.say(bob, "one")
        a1.say(bob, "two")
        assert not a1.told("receipt"), "nobody has acknowledged anything: devices read when asked to"
        b1.settle()
        for device in (a1, a2):
            device.until(
                lambda device=device: device.told(
                    "receipt", status="delivered", conversation_id=where, user_id=bob, seq=2
                ),
                "the receipt",
            )
        assert not a1.told("receipt", status="read")


def test_delivered_while_away_and_after_a_restart(make_node) -> None:  # type: ignore[no-untyped-def]
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    with Device(node, bob) as b:
        b.rpc("users.update", who_sees_presence="everyone")
        b.close()
    with Device(node, alice) as a:
        for i in range(30):
            a.say(bob, f"m{i}")
        a.settle()
        assert not a.told("receipt")
    node.kill()
    node.start()
    with Device(node, alice) as a, Device(node, bob) as b:
        b.until(lambda: len(b.inbox) == 30, "what came while away")
        a.until(lambda: a.told("receipt", status="delivered", seq=30), "the receipt")
        seqs = [event["seq"] for event in a.told("receipt")]
        assert seqs == sorted(set(seqs)), "they only go forward"


def test_read(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        for i in range(3):
            a1.say(bob, f"m{i}")
        b1.rpc("messages.read", conversation_id=where, seq=2)
        for device in (a1, a2, b2):
            assert device.told("receipt", status="read", conversation_id=where, user_id=bob, seq=2)
        b1.rpc("messages.read", conversation_id=where, seq=1)
        assert b2.conversation(where)["read_seq"] == 2, "it does not go back"
        assert not a1.told("receipt", status="read", seq=1)
        assert b1.refused("messages.read", conversation_id=where, seq=4) == "out_of_range"
        b1.rpc("users.update", who_sees_presence="everyone")
        b1.rpc("messages.delivered", conversation_id=where, seq=3)
        assert a1.told("receipt", status="delivered", seq=3)
        assert_same(a1, a2, b1, b2)


def test_readers_of_a_group_message(node: Node) -> None:
    alice, bob, carol, dave = (node.user(name) for name in ("alice", "bob", "carol", "dave"))
    group = node.group(alice, bob, carol, dave)
    where = f"g:{group}"
    with devices(node, alice, bob, carol, dave, each=1) as (a, b, c, d):
        a.post(group, "who reads this?")
        message = b.group(group)[-1]
        assert a.rpc("messages.readers", id=message["id"])["readers"] == []
        b.rpc("messages.read", conversation_id=where, seq=message["seq"])
        c.rpc("messages.read", conversation_id=where, seq=message["seq"] - 1)
        d.rpc("users.update", read_receipts=False)
        d.rpc("messages.read", conversation_id=where, seq=message["seq"])
        readers = a.rpc("messages.readers", id=message["id"])
        assert readers == {"readers": [{"user_id": bob, "read_seq": message["seq"]}], "next": ""}
        assert b.refused("messages.readers", id=message["id"]) == "not_authorized"
        assert {event["user_id"] for event in a.told("receipt")} == {bob, carol}
        d.rpc("users.update", read_receipts=True)
        assert len(a.rpc("messages.readers", id=message["id"])["readers"]) == 2


def test_read_receipts_off(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, _, b1, b2):
        a1.say(bob, "hello")
        b1.rpc("users.update", read_receipts=False)
        b1.rpc("messages.read", conversation_id=where, seq=1)
        assert b2.told("receipt", status="read", seq=1), "one's own devices are told"
        assert not a1.told("receipt", status="read")
        b1.rpc("users.update", read_receipts=True)
        a1.say(bob, "again")
        b1.rpc("messages.read", conversation_id=where, seq=2)
        assert a1.told("receipt", status="read", seq=2)


def test_many_reads_at_once(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        for i in range(30):
            a.say(bob, f"m{i}")
        b.settle()
        seqs = (20, 3, 25, 5, 15, 30, 2)
        b.together("messages.read", [{"conversation_id": where, "seq": seq} for seq in seqs])
        for device in (a, b):
            told = [event["seq"] for event in device.told("receipt", status="read")]
            assert told == sorted(set(told)), "they only go forward"
            assert told[-1] == 30


def test_a_mark_is_taken_away_and_the_watermark_stays(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        for i in range(5):
            a.say(bob, f"m{i}")
        b.rpc("messages.read", conversation_id=where, seq=5)
        b.rpc("conversations.set", conversation_id=where, marked_unread=True)
        b.rpc("messages.read", conversation_id=where, seq=3)
        assert not b.conversation(where)["marked_unread"]
        assert [event["seq"] for event in b.told("receipt", status="read")] == [5, 5]
        assert [event["seq"] for event in a.told("receipt", status="read")] == [5]


def test_readers_are_those_who_could_read(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob)
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        a.post(group, "before carol")
        message = a.group(group)[-1]
        a.rpc("groups.add", group_id=group, user_ids=[carol])
        for device in (b, c):
            device.rpc("messages.read", conversation_id=f"g:{group}", seq=a.group(group)[-1]["seq"])
        readers = a.rpc("messages.readers", id=message["id"])["readers"]
        assert [reader["user_id"] for reader in readers] == [bob]


def test_readers_after_a_block(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        a.say(bob, "are you there?")
        a.post(group, "or here?")
        b.rpc("contacts.block", user_id=alice)
        for entry, where in ((a.inbox[-1], private(alice, bob)), (a.group(group)[-1], f"g:{group}")):
            b.rpc("messages.read", conversation_id=where, seq=entry["seq"])
            assert a.rpc("messages.readers", id=entry["id"])["readers"] == []
            b.rpc("contacts.unblock", user_id=alice)
            readers = a.rpc("messages.readers", id=entry["id"])["readers"]
            assert [reader["user_id"] for reader in readers] == [bob]
            b.rpc("contacts.block", user_id=alice)
