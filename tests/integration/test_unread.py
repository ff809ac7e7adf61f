"""Unread means messages unread, and the last message is the last thing said."""

from typing import Any

from tests.integration.im import Device, assert_same, devices, private
from tests.integration.node import Node


def unread(device: Device, where: str) -> tuple[int, Any]:
    """Of a conversation: the unread messages, and the content of the last one."""
    view = device.conversation(where)
    last = view["last_message"]
    return view["unread"], last and last["content"]


def test_edits_and_recalls_do_not_count(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        for text in ("one", "two", "three"):
            a.say(bob, text)
        ids = [entry["id"] for entry in a.inbox]
        a.rpc("messages.edit", id=ids[0], content="uno")
        assert unread(b, where) == (3, "three")
        for message in ids:
            a.rpc("messages.recall", id=message)
        assert unread(b, where) == (3, None)
        last = b.conversation(where)["last_message"]
        assert (last["id"], last["seq"], last["type"]) == (ids[2], 3, "text")
        assert last["recalled_at"]
        assert b.rpc("conversations.list")["unread_total"] == 3


def test_what_is_edited_after_it_was_read_is_read(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        a.say(bob, "helo")
        b.rpc("messages.read", conversation_id=where, seq=1)
        a.rpc("messages.edit", id=b.inbox[0]["id"], content="hello")
        assert unread(b, where) == (0, "hello")
        assert b.conversation(where)["head_seq"] == 2


def test_who_edits_has_not_read(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where, group = private(alice, bob), node.group(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        b.say(alice, "an older one of his own")
        b.post(group, "an older one of his own")
        for mine, other in ((b.inbox[-1]["id"], where), (b.group(group)[-1]["id"], f"g:{group}")):
            for text in ("one", "two"):
                if other == where:
                    a.say(bob, text)
                else:
                    a.post(group, text)
            b.rpc("messages.edit", id=mine, content="edited")
            assert unread(b, other) == (2, "two")
            b.rpc("messages.recall", id=mine)
            assert unread(b, other) == (2, "two")
        b.say(alice, "an answer")
        assert unread(b, where) == (0, "an answer")


def test_system_entries_are_not_messages(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob)
    where = f"g:{group}"
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        assert unread(b, where) == (0, None)
        a.post(group, "hello")
        a.rpc("groups.update", group_id=group, name="Another")
        assert unread(b, where) == (1, "hello")
        a.rpc("groups.set_role", group_id=group, user_id=bob, role="admin")
        b.rpc("groups.update", group_id=group, name="His")
        assert unread(b, where) == (1, "hello"), "what he does there does not mark as read"
        a.rpc("groups.add", group_id=group, user_ids=[carol])
        assert unread(c, where) == (0, None)
        a.post(group, "hello carol")
        assert unread(c, where) == (1, "hello carol")
        c.rpc("contacts.request", user_id=bob)
        assert unread(b, private(bob, carol)) == (0, None)
        assert_same(a, b)


def test_each_entry_carries_its_number(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        for say, name in ((a.say, bob), (a.post, group)):
            say(name, "one")
            say(name, "two")
        for message in (a.inbox[0]["id"], a.group(group)[1]["id"]):
            entry = a.rpc("messages.edit", id=message, content="uno")["entry"]
            assert entry["n"] == 2
        a.say(bob, "three")
        a.post(group, "three")
        assert [entry["n"] for entry in b.inbox] == [1, 2, 2, 3]
        assert [entry["n"] for entry in b.group(group)] == [1, 2, 2, 3], "she made it before he was there"
        for conversation, numbers in ((where, [1, 2, 2, 3]), (f"g:{group}", [0, 1, 2, 2, 3])):
            shown = b.rpc("messages.history", conversation_id=conversation)["messages"]
            assert [entry["n"] for entry in shown] == numbers
            assert [entry["n"] for entry in node.history(conversation)] == numbers
            assert b.conversation(conversation)["last_message"]["n"] == 3
        assert_same(a, b)
