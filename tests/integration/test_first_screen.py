"""What an app needs for its first screen: who a conversation is with, how far they are, whether one is
mentioned, and from where to go on."""

import threading
from typing import Any

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device, devices, in_threads, private
from tests.integration.node import Node, password


def views(device: Device, **parameters: Any) -> dict[str, dict[str, Any]]:
    listed = device.rpc("conversations.list", **parameters)["conversations"]
    return {view["conversation_id"]: view for view in listed}


# --- names ----------------------------------------------------------------------------------


def test_names_in_place_of_ids(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = a.rpc("groups.create", name="Team", members=[bob], avatar="https://x/team.png")["group_id"]
        a.rpc("users.update", name="Alice Smith", avatar="https://x/alice.png")
        b.rpc("contacts.request", user_id=alice)
        a.rpc("contacts.accept", user_id=bob)
        b.rpc("contacts.remark", user_id=alice, remark="my Alice")
        b.say(bob, "a note")
        found = views(b)
        assert found[private(alice, bob)]["peer"] == {
            "user_id": alice,
            "name": "Alice Smith",
            "avatar": "https://x/alice.png",
            "remark": "my Alice",
        }
        assert found[private(alice, bob)]["group"] is None
        assert found[f"g:{group}"]["group"] == {
            "group_id": group,
            "name": "Team",
            "avatar": "https://x/team.png",
        }
        assert found[f"g:{group}"]["peer"] is None
        assert found[private(bob, bob)]["peer"] == {"user_id": bob, "name": "", "avatar": "", "remark": ""}
        assert views(a)[private(alice, bob)]["peer"]["remark"] == "", "a remark is for who made it"
        marked = b.rpc("conversations.set", conversation_id=private(alice, bob), pinned=True)
        assert marked == found[private(alice, bob)] | {"pinned": True}


def test_a_peer_who_is_gone(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        b.rpc("users.update", name="Bob")
        a.say(bob, "hello")
        b.rpc("messages.read", conversation_id=where, seq=1)
        assert views(a)[where]["peer_read_seq"] == 1
        node.call("RemoveUser", pb.RemoveUserRequest(user_id=bob))
        gone = views(a)[where]
        assert gone["peer"] == {"user_id": bob, "name": "", "avatar": "", "remark": ""}
        assert (gone["peer_read_seq"], gone["peer_delivered_seq"]) == (0, 0)
        node.call("AddUser", pb.AddUserRequest(user_id=bob, password=password(bob), reuse_id=True))
        again = views(a)[where]
        assert (again["peer_read_seq"], again["peer_delivered_seq"]) == (0, 0), (
            "another one, who read nothing"
        )
        with Device(node, bob) as new:
            a.say(bob, "to the new one")
            new.rpc("messages.read", conversation_id=where, seq=2)
            assert views(a)[where]["peer_read_seq"] == 2


# --- how far they are -----------------------------------------------------------------------


def befriend(one: Device, other: Device) -> None:
    one.rpc("contacts.request", user_id=other.user)
    other.rpc("contacts.accept", user_id=one.user)


def test_how_far_the_other_is(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        befriend(a, b)
        first = a.conversation(where)["head_seq"]
        for i in range(3):
            a.say(bob, f"m{i}")
        b.settle()
        a.until(lambda: views(a)[where]["peer_delivered_seq"] == first + 3, "the delivery")
        assert views(a)[where]["peer_read_seq"] == 0
        b.rpc("messages.read", conversation_id=where, seq=first + 2)
        seen = views(a)[where]
        assert (seen["peer_read_seq"], seen["peer_delivered_seq"]) == (first + 2, first + 3)
        assert views(b)[where]["peer_read_seq"] == 0


def test_receipts_that_are_not_given_are_not_listed(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group, where = node.group(alice, bob), private(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        befriend(a, b)
        a.say(bob, "hello")
        head = a.conversation(where)["head_seq"]
        b.rpc("messages.read", conversation_id=where, seq=head)
        b.rpc("messages.read", conversation_id=f"g:{group}", seq=1)
        assert (views(a)[where]["peer_read_seq"], views(a)[where]["peer_delivered_seq"]) == (head, head)
        assert views(a)[f"g:{group}"]["peer_read_seq"] == 0
        b.rpc("users.update", read_receipts=False)
        assert (views(a)[where]["peer_read_seq"], views(a)[where]["peer_delivered_seq"]) == (0, head)
        b.rpc("users.update", read_receipts=True, who_sees_presence="nobody")
        assert (views(a)[where]["peer_read_seq"], views(a)[where]["peer_delivered_seq"]) == (head, 0)
        b.rpc("users.update", who_sees_presence="contacts")
        b.rpc("contacts.remove", user_id=alice)
        assert (views(a)[where]["peer_read_seq"], views(a)[where]["peer_delivered_seq"]) == (head, 0)
        b.rpc("users.update", who_sees_presence="everyone")
        assert views(a)[where]["peer_delivered_seq"] == head
        b.rpc("contacts.block", user_id=alice)
        assert (views(a)[where]["peer_read_seq"], views(a)[where]["peer_delivered_seq"]) == (0, 0)
        assert views(b)[where]["peer_read_seq"] == 0, "a block is one for both"


# --- mentions -------------------------------------------------------------------------------


def test_who_is_mentioned(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob, carol)
    where = f"g:{group}"
    with devices(node, alice, bob, carol, each=1) as (a, b, c):

        def mentioned(device: Device) -> int | None:
            found: int | None = views(device)[where]["mentioned_seq"]
            return found

        a.post(group, {"content": "hello", "mentions": []})  # seq 2
        assert mentioned(b) is None
        a.post(group, {"content": "hello you two", "mentions": [bob, carol]})
        a.post(group, "and so on")
        assert (mentioned(a), mentioned(b), mentioned(c)) == (None, 3, 3)
        a.post(group, {"content": "bob?", "mentions": [bob]})
        assert (mentioned(b), mentioned(c)) == (5, 3)
        c.post(group, {"content": "all?", "mentions": "all"})
        assert (mentioned(a), mentioned(b), mentioned(c)) == (6, 6, None), "who writes has read"
        a.rpc("messages.recall", id=a.group(group)[-1]["id"])
        assert (mentioned(a), mentioned(b)) == (None, 5), "what was recalled mentions nobody"
        b.rpc("messages.read", conversation_id=where, seq=4)
        assert mentioned(b) == 5
        b.rpc("messages.read", conversation_id=where, seq=5)
        assert mentioned(b) is None
        a.post(group, {"content": "bob!", "mentions": [bob]})
        message = a.group(group)[-1]
        a.rpc("messages.edit", id=message["id"], content="Bob!")
        assert mentioned(b) == message["seq"]


def test_mentions_between_two_and_before_one_joined(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob)
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        a.say(bob, {"content": "bob?", "mentions": [bob]})
        assert views(b)[private(alice, bob)]["mentioned_seq"] == 1
        assert views(a)[private(alice, bob)]["mentioned_seq"] is None
        a.post(group, {"content": "all?", "mentions": "all"})
        a.rpc("groups.add", group_id=group, user_ids=[carol])
        assert views(c)[f"g:{group}"]["mentioned_seq"] is None
        a.post(group, {"content": "all?", "mentions": "all"})
        assert views(c)[f"g:{group}"]["mentioned_seq"] == c.group(group)[-1]["seq"]


# --- from where to go on --------------------------------------------------------------------


def follow(device: Device, cursors: dict[str, int]) -> list[dict[str, Any]]:
    """What `messages.sync` returns after the cursors, in small pages."""
    entries = []
    while True:
        page = device.rpc("messages.sync", cursors=cursors, limit=7)
        entries += page["messages"]
        cursors = page["cursors"]
        if not page["more"]:
            return entries


def test_listing_then_following(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        for i in range(40):
            a.say(bob, f"old {i}")
            a.post(group, f"old {i}")
        listed = b.rpc("conversations.list")
        assert listed["cursors"] == {f"users/{bob}/inbox": 40, f"groups/{group}": 41}
        assert follow(b, listed["cursors"]) == [], "no detour through the whole inbox"
        a.say(bob, "new")
        a.post(group, "new")
        a.rpc("messages.edit", id=b.inbox[0]["id"], content="edited")
        found = follow(b, listed["cursors"])
        assert [(entry["conversation_id"], entry["type"]) for entry in found] == [
            (private(alice, bob), "text"),
            (private(alice, bob), "edit"),
            (f"g:{group}", "text"),
        ]


def test_a_group_that_is_joined_later_starts_at_0(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice)
    with devices(node, alice, bob, each=1) as (a, b):
        a.post(group, "before")
        cursors = b.rpc("conversations.list")["cursors"]
        assert f"groups/{group}" not in cursors
        a.rpc("groups.add", group_id=group, user_ids=[bob])
        assert b.told("group", type="added", group_id=group)
        a.post(group, "after")
        found = follow(b, cursors | {f"groups/{group}": 0})
        assert [entry["type"] for entry in found] == ["system", "text"]
        assert found[-1]["content"] == "after"


def test_there_is_no_hole_while_others_write(node: Node) -> None:
    """Whatever is stored while somebody lists and follows is in the list, or comes after it."""
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob, carol)
    inbox, topic = f"users/{bob}/inbox", f"groups/{group}"
    done = threading.Event()

    def write(user: str) -> None:
        with Device(node, user, "writer") as device:
            for i in range(1000):
                if done.is_set():
                    return
                device.say(bob, f"{i}")
                device.post(group, f"{i}")

    def read() -> None:
        try:
            with Device(node, bob, "reader") as b:
                for _ in range(15):
                    listed = b.rpc("conversations.list")
                    cursors = listed["cursors"]
                    heads = {view["conversation_id"]: view["head_seq"] for view in listed["conversations"]}
                    assert heads[f"g:{group}"] >= cursors[topic]
                    said = sum(head for name, head in heads.items() if name.startswith("p:"))
                    assert said >= cursors[inbox], "each entry of the inbox is one of a conversation"
                    for log, offsets in offsets_of(follow(b, cursors), inbox, topic).items():
                        first = cursors[log] + 1
                        assert offsets == list(range(first, first + len(offsets)))
                        live = [entry["offset"] for entry in b.settle().log(log) if entry["offset"] >= first]
                        both = {*offsets, *live}
                        assert both == set(range(first, first + len(both))), "and what arrives live goes on"
        finally:
            done.set()

    with Device(node, alice) as a, Device(node, carol) as c:
        for device in (a, c):
            device.say(bob, "the first")
    in_threads([lambda: write(alice), lambda: write(carol), read])


def offsets_of(entries: list[dict[str, Any]], inbox: str, topic: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {inbox: [], topic: []}
    for entry in entries:
        found[topic if "group_id" in entry else inbox].append(entry["offset"])
    return found


def test_only_the_first_page_has_cursors(node: Node) -> None:
    bob = node.user("bob")
    with Device(node, bob) as b:
        for _ in range(3):
            b.say(node.user("peer"), "hello")
        page = b.rpc("conversations.list", limit=2)
        assert page["cursors"] == {f"users/{bob}/inbox": 3}
        rest = b.rpc("conversations.list", limit=2, cursor=page["next"])
        assert (len(rest["conversations"]), rest["cursors"], rest["next"]) == (1, {}, "")


# --- receipts in groups ---------------------------------------------------------------------


def test_members_of_a_small_group_are_told_who_has_read(node: Node) -> None:
    alice, bob, carol, dave, eve = (node.user(name) for name in ("alice", "bob", "carol", "dave", "eve"))
    group = node.group(alice, bob, carol, dave)
    where = f"g:{group}"
    with devices(node, alice, bob, carol, dave, eve, each=1) as (a, b, c, d, e):
        a.post(group, "who reads this?")
        seq = a.group(group)[-1]["seq"]
        d.rpc("contacts.block", user_id=bob)
        b.rpc("messages.read", conversation_id=where, seq=seq)
        receipt = {"status": "read", "conversation_id": where, "user_id": bob, "seq": seq}
        for device in (a, b, c):
            assert device.told("receipt", **receipt)
        assert not d.told("receipt"), "a block is one in groups, too"
        assert not e.told("receipt"), "who is no member"
        b.rpc("messages.read", conversation_id=where, seq=seq)
        assert len(a.told("receipt")) == 1, "once"
        a.rpc("groups.add", group_id=group, user_ids=[eve])
        c.rpc("users.update", read_receipts=False)
        c.rpc("messages.read", conversation_id=where, seq=seq)
        assert not a.told("receipt", user_id=carol)
        c.rpc("users.update", read_receipts=True)
        d.rpc("messages.read", conversation_id=where, seq=seq)
        assert a.told("receipt", user_id=dave)
        assert not e.told("receipt"), "about what was said before she came"


def test_receipts_are_not_kept_for_who_is_away(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    Device(node, alice).close()
    with Device(node, bob) as b:
        b.rpc("messages.read", conversation_id=f"g:{group}", seq=1)
    with Device(node, alice) as a:
        assert not a.told("receipt")


@pytest.mark.parametrize("most", [0, 2])
def test_large_groups_are_not_told(make_node: Any, most: int) -> None:
    node = make_node(f"messages.group_receipts={most}").start()
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    small, large = node.group(alice, bob), node.group(alice, bob, carol)
    with devices(node, alice, bob, each=1) as (a, b):
        for group in (small, large):
            b.rpc("messages.read", conversation_id=f"g:{group}", seq=1)
        told = {event["conversation_id"] for event in a.told("receipt")}
        assert told == ({f"g:{small}"} if most == 2 else set())


def test_how_many_have_read(node: Node) -> None:
    alice, bob, carol, dave = (node.user(name) for name in ("alice", "bob", "carol", "dave"))
    group = node.group(alice, bob, carol)
    where = f"g:{group}"
    with devices(node, alice, bob, carol, dave, each=1) as (a, b, c, d):
        for text in ("one", "two", "three"):
            a.post(group, text)
        b.post(group, "bob's")
        ids = [entry["id"] for entry in a.group(group)[-4:]]
        a.rpc("groups.add", group_id=group, user_ids=[dave])
        a.post(group, "four")
        ids.append(a.group(group)[-1]["id"])
        ask = {"conversation_id": where, "ids": [ids[2], ids[0], *ids]}
        none = {"counts": dict.fromkeys((*ids[:3], ids[4]), 0), "missing": [ids[3]]}
        assert a.rpc("messages.read_counts", **ask) == none
        b.rpc("messages.read", conversation_id=where, seq=3)
        c.rpc("messages.read", conversation_id=where, seq=4)
        d.rpc("messages.read", conversation_id=where, seq=7)
        counts = a.rpc("messages.read_counts", **ask)["counts"]
        assert [counts[each] for each in (*ids[:3], ids[4])] == [2, 2, 1, 1]
        c.rpc("users.update", read_receipts=False)
        d.rpc("contacts.block", user_id=alice)
        counts = a.rpc("messages.read_counts", **ask)["counts"]
        assert [counts[each] for each in (*ids[:3], ids[4])] == [1, 1, 0, 0]
        b.rpc("groups.leave", group_id=group)
        counts = a.rpc("messages.read_counts", **ask)["counts"]
        assert set(counts.values()) == {0}, "who has left is none of its readers"
        assert b.refused("messages.read_counts", **ask) == "not_member"
        a.say(bob, "and you?")
        mine = a.inbox[-1]
        asked = {"conversation_id": private(alice, bob), "ids": [mine["id"], ids[0], "1"]}
        assert a.rpc("messages.read_counts", **asked) == {"counts": {mine["id"]: 0}, "missing": [ids[0], "1"]}
        b.rpc("messages.read", conversation_id=private(alice, bob), seq=1)
        assert a.rpc("messages.read_counts", **asked)["counts"] == {mine["id"]: 1}
