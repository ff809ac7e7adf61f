"""Reading messages by id, and around one of them."""

from typing import Any

import pytest

from tests.integration.im import Device, devices, private
from tests.integration.node import Node


def get(device: Device, *ids: str) -> tuple[list[Any], list[str]]:
    """What `messages.get` returns: contents and missing ids. All of it fits."""
    found = device.rpc("messages.get", ids=list(ids))
    assert found["rest"] == []
    return [message["content"] for message in found["messages"]], found["missing"]


# --- by id ----------------------------------------------------------------------------------


def test_messages_by_id_whichever_conversation_they_are_in(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group, other = node.group(alice, bob), node.group(alice, carol)
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        a.say(bob, "to bob")
        a.post(group, "to the group")
        a.say(carol, "to carol")
        a.post(other, "to the other group")
        b.say(bob, "a note")
        to_bob, to_carol = a.inbox[0]["id"], a.inbox[1]["id"]
        in_group, in_other = a.group(group)[-1]["id"], a.group(other)[-1]["id"]
        note = b.inbox[-1]["id"]
        asked = [in_group, to_carol, to_bob, "7", in_other, note, in_group]
        assert get(b, *asked) == (["to the group", "to bob", "a note"], [to_carol, "7", in_other])
        assert get(a, *asked) == (["to the group", "to carol", "to bob", "to the other group"], ["7", note])
        assert get(c, *asked) == (["to carol", "to the other group"], [in_group, to_bob, "7", note])
        found = b.rpc("messages.get", ids=[to_bob, in_group])["messages"]
        for each, where in zip(found, (private(alice, bob), f"g:{group}"), strict=True):
            assert each in b.rpc("messages.history", conversation_id=where)["messages"]
        a.rpc("groups.remove", group_id=group, user_ids=[bob])
        assert get(b, in_group) == ([], [in_group])


def test_messages_by_id_as_they_are_now(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        a.say(bob, "one")
        a.say(bob, "two")
        one, two = (entry["id"] for entry in a.inbox)
        a.rpc("messages.edit", id=one, content="uno")
        a.rpc("messages.recall", id=two)
        first, second = b.rpc("messages.get", ids=[one, two])["messages"]
        assert (first["content"], "edited_at" in first) == ("uno", True)
        assert (second["content"], "recalled_at" in second) == (None, True)


def test_messages_by_id_that_do_not_fit(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        for i in range(5):
            a.say(bob, f"{i}" * 60_000)
        ids = [entry["id"] for entry in a.inbox]
        pages = []
        rest = ids
        while rest:
            page = b.rpc("messages.get", ids=rest)
            assert (len(page["messages"]) + len(page["rest"]), page["missing"]) == (len(rest), [])
            pages.append([message["id"] for message in page["messages"]])
            rest = page["rest"]
        assert [each for page in pages for each in page] == ids
        assert [len(page) for page in pages] == [2, 2, 1]


# --- around a message -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["private", "group"])
def test_history_before_after_and_around(node: Node, kind: str) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = a.rpc("groups.create", members=[bob])["group_id"]
        where = f"g:{group}" if kind == "group" else private(alice, bob)
        if kind == "private":  # the entry of a group's making is its first
            a.say(bob, "the first")
        for i in range(2, 31):
            if kind == "group":
                a.post(group, f"{i}")
            else:
                a.say(bob, f"{i}")
        ids = {
            entry["seq"]: entry["id"]
            for entry in b.rpc("messages.history", conversation_id=where, limit=100)["messages"]
        }
        assert list(ids) == list(range(1, 31))

        def seqs(**place: Any) -> list[int]:
            return [
                entry["seq"]
                for entry in b.rpc("messages.history", conversation_id=where, **place)["messages"]
            ]

        for limit, seq, first, last in (
            (5, 10, 8, 12),
            (4, 10, 8, 11),
            (1, 10, 10, 10),
            (2, 10, 9, 10),
            (6, 1, 1, 3),
            (6, 30, 27, 30),
            (100, 10, 1, 30),
        ):
            expected = list(range(first, last + 1))
            assert seqs(around_seq=seq, limit=limit) == expected
            assert seqs(around_id=ids[seq], limit=limit) == expected
        assert b.refused("messages.history", conversation_id=where, around_seq=31) == "out_of_range"
        assert seqs(before_id=ids[10], limit=3) == seqs(before_seq=10, limit=3) == [7, 8, 9]
        assert seqs(after_id=ids[10], limit=3) == seqs(after_seq=10, limit=3) == [11, 12, 13]
        assert len(seqs(around_seq=15)) == 20


def test_around_a_message_from_before_one_joined(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice)
    where = f"g:{group}"
    with devices(node, alice, bob, each=1) as (a, b):
        for i in range(5):
            a.post(group, f"{i}")
        hidden = a.group(group)[-1]
        a.rpc("groups.add", group_id=group, user_ids=[bob])
        a.post(group, "hello bob")
        for place in ("around_id", "before_id", "after_id"):
            assert (
                b.refused("messages.history", conversation_id=where, **{place: hidden["id"]}) == "not_found"
            )
        around = b.rpc("messages.history", conversation_id=where, around_seq=hidden["seq"])["messages"]
        assert [entry["type"] for entry in around] == ["system", "text"]


def test_large_messages_around_one(node: Node) -> None:
    """The reply stays small: the nearest messages stay."""
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        for i in range(9):
            a.say(bob, f"{i}" * 30_000)
        around = b.rpc("messages.history", conversation_id=where, around_seq=5)["messages"]
        assert [entry["seq"] for entry in around] == [3, 4, 5, 6]
        a.say(bob, "x" * 200_000)
        around = b.rpc("messages.history", conversation_id=where, around_seq=10)["messages"]
        assert [entry["seq"] for entry in around] == [10]
