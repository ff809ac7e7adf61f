"""Groups: permissions, one history for all members, and dismissal."""

import json
import sqlite3
import time
from contextlib import closing
from functools import partial

import pytest

from tests.integration.im import Device, assert_same, devices, in_threads
from tests.integration.node import Node, wait_for
from tests.integration.raw import publish


def events(device: Device, group: str) -> list[str]:
    """The `system` events in the group's log, as the device received them."""
    return [entry["content"]["event"] for entry in device.group(group) if entry["type"] == "system"]


def make(owner: Device, *members: str, **settings: object) -> str:
    return str(owner.rpc("groups.create", name="Team", members=list(members), **settings)["group_id"])


def test_create(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        view = a1.rpc("groups.create", name="Team", members=[bob], announcement="hello", avatar="a.png")
        group = view["group_id"]
        assert (view["owner"], view["members"], view["role"]) == (alice, 2, "owner")
        for device in (a1, a2, b1, b2):
            (entry,) = device.until(lambda device=device: device.group(group), "the group's first entry")
            assert entry["content"] == {
                "event": "group_created",
                "by": alice,
                "name": "Team",
                "user_ids": [alice, bob],
            }
        assert b1.told("group", type="added", group_id=group, by=alice)
        seen = b2.rpc("groups.get", group_id=group)
        assert (seen["role"], seen["announcement"]) == ("member", "hello")
        assert [view["group_id"] for view in b1.rpc("groups.list")["groups"]] == [group]
        members = b1.rpc("groups.members", group_id=group)["members"]
        assert {member["user_id"]: member["role"] for member in members} == {alice: "owner", bob: "member"}
        b1.post(group, "hi")
        assert a2.group(group)[-1]["content"] == "hi"
        assert a1.refused("groups.create", group_id=group) == "exists"
        assert a1.refused("groups.create", members=["nobody-here"]) == "not_found"
        assert_same(a1, a2, b1, b2)


def test_update(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = make(a, bob)
        a.rpc("groups.update", group_id=group, name="Crew", announcement="new")
        assert b.group(group)[-1]["content"] == {
            "event": "group_updated",
            "by": alice,
            "name": "Crew",
            "announcement": "new",
        }
        assert b.rpc("groups.get", group_id=group)["name"] == "Crew"
        before = len(b.group(group))
        a.rpc("groups.update", group_id=group, name="Crew")
        assert len(b.group(group)) == before, "nothing changed"
        assert b.refused("groups.update", group_id=group, name="Mine") == "not_authorized"
        assert_same(a, b)


def test_add_remove_leave(node: Node) -> None:
    alice, bob, carol, dave = (node.user(name) for name in ("alice", "bob", "carol", "dave"))
    with devices(node, alice, bob, carol, dave, each=1) as (a, b, c, d):
        group = make(a, bob)
        a.post(group, "before carol")
        assert b.rpc("groups.add", group_id=group, user_ids=[carol, bob])["user_ids"] == [carol]
        assert c.told("group", type="added", by=bob)
        c.until(lambda: events(c, group) == ["members_added"], "what happened since c came")
        a.rpc("groups.update", group_id=group, who_may_invite="admins")
        assert b.refused("groups.add", group_id=group, user_ids=[dave]) == "not_authorized"
        assert d.refused("groups.add", group_id=group, user_ids=[dave]) == "not_member"
        assert b.refused("groups.remove", group_id=group, user_ids=[carol]) == "not_authorized"
        assert a.rpc("groups.remove", group_id=group, user_ids=[carol, dave])["user_ids"] == [carol]
        assert c.told("group", type="removed", group_id=group, by=alice)
        a.post(group, "without carol")
        c.post(group, "let me in")
        assert c.error()["code"] == "not_member"
        assert "without carol" not in str(c.entries)
        assert c.refused("groups.members", group_id=group) == "not_member"
        b.rpc("groups.leave", group_id=group)
        assert b.refused("groups.leave", group_id=group) == "not_member"
        assert events(a, group)[-1] == "member_left"
        assert a.refused("groups.leave", group_id=group) == "is_owner"
        assert a.refused("groups.remove", group_id=group, user_ids=[alice]) == "is_owner"
        assert_same(a)


def test_history_for_new_members(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = make(a, history_visible=True)
        a.post(group, "from before")
        a.rpc("groups.add", group_id=group, user_ids=[bob])
        b.until(lambda: len(b.group(group)) == 3, "the whole history")
        assert b.group(group)[1]["content"] == "from before"
        assert_same(a, b)


def test_join(node: Node) -> None:
    alice, bob, carol, dave = (node.user(name) for name in ("alice", "bob", "carol", "dave"))
    with devices(node, alice, bob, carol, dave, each=1) as (a, b, c, d):
        group = make(a, announcement="inside")
        assert b.rpc("groups.get", group_id=group)["announcement"] == "", "outsiders see less"
        assert b.rpc("groups.join", group_id=group, note="please") == {"status": "requested"}
        assert a.told("group", type="requested", group_id=group, by=bob)
        (asked,) = a.rpc("groups.requests", group_id=group)["requests"]
        assert (asked["user_id"], asked["note"]) == (bob, "please")
        assert b.refused("groups.requests", group_id=group) == "not_member"
        a.rpc("groups.accept", group_id=group, user_id=bob)
        assert b.told("group", type="accepted")
        b.until(lambda: events(b, group) == ["members_added"], "what happened since")
        assert a.rpc("groups.requests", group_id=group)["requests"] == []
        c.rpc("groups.join", group_id=group)
        a.rpc("groups.reject", group_id=group, user_id=carol)
        assert c.told("group", type="rejected")
        assert a.refused("groups.accept", group_id=group, user_id=carol) == "not_found"
        a.rpc("groups.update", group_id=group, join="open")
        assert c.rpc("groups.join", group_id=group) == {"status": "joined"}
        assert events(a, group)[-1] == "member_joined"
        assert c.refused("groups.join", group_id=group) == "exists"
        a.rpc("groups.update", group_id=group, join="closed")
        assert d.refused("groups.join", group_id=group) == "not_found"
        assert_same(a, b, c)


def test_ban(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        group = make(a, bob, carol, join="open")
        a.rpc("groups.ban", group_id=group, user_id=bob)
        assert b.told("group", type="banned")
        b.post(group, "x")
        assert b.error()["code"] == "not_member"
        assert b.refused("groups.join", group_id=group) == "banned"
        assert c.refused("groups.add", group_id=group, user_ids=[bob]) == "banned"
        assert a.rpc("groups.bans", group_id=group)["bans"] == [{"user_id": bob, "until": 0}]
        a.rpc("groups.unban", group_id=group, user_id=bob)
        assert a.refused("groups.unban", group_id=group, user_id=bob) == "not_found"
        b.rpc("groups.join", group_id=group)
        assert events(c, group)[-3:] == ["member_banned", "member_unbanned", "member_joined"]
        assert_same(a, c)


def test_mute(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    later = int(time.time() * 1000) + 3_600_000
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        group = make(a, bob, carol)
        b.post(group, "one")
        a.rpc("groups.mute", group_id=group, user_id=bob, until=later)
        b.post(group, "two")
        assert b.error()["code"] == "muted"
        b.publish(f"groups/{group}/typing", "")
        assert b.error()["topic"] == f"groups/{group}/typing"
        c.post(group, "three")
        a.rpc("groups.mute", group_id=group, user_id=bob, until=0)
        b.post(group, "four")
        a.rpc("groups.mute", group_id=group, until=later)
        b.post(group, "five")
        assert b.error()["code"] == "muted"
        a.post(group, "the owner may")
        a.rpc("groups.set_role", group_id=group, user_id=carol, role="admin")
        c.post(group, "an admin may")
        a.rpc("groups.mute", group_id=group, until=0)
        a.rpc("groups.update", group_id=group, who_may_post="admins")
        b.post(group, "six")
        assert b.error()["code"] == "not_authorized"
        assert b.refused("groups.mute", group_id=group, user_id=carol, until=later) == "not_authorized"
        said = [entry["content"] for entry in a.group(group) if entry["type"] == "text"]
        assert said == ["one", "three", "four", "the owner may", "an admin may"]
        assert_same(a, b, c)


def test_roles_and_transfer(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        group = make(a, bob, carol)
        assert b.refused("groups.set_role", group_id=group, user_id=carol, role="admin") == "not_authorized"
        a.rpc("groups.set_role", group_id=group, user_id=bob, role="admin")
        b.rpc("groups.update", group_id=group, name="Bob's")
        assert b.refused("groups.set_role", group_id=group, user_id=carol, role="admin") == "not_authorized"
        assert b.refused("groups.remove", group_id=group, user_ids=[alice]) == "is_owner"
        assert b.refused("groups.dismiss", group_id=group) == "not_authorized"
        a.rpc("groups.set_role", group_id=group, user_id=carol, role="admin")
        assert b.refused("groups.remove", group_id=group, user_ids=[carol]) == "not_authorized"
        assert b.refused("groups.mute", group_id=group, user_id=carol, until=2**52) == "not_authorized"
        assert a.refused("groups.set_role", group_id=group, user_id=alice, role="member") == "is_owner"
        view = a.rpc("groups.transfer", group_id=group, user_id=bob)
        assert (view["owner"], view["role"]) == (bob, "admin")
        roles = {m["user_id"]: m["role"] for m in c.rpc("groups.members", group_id=group)["members"]}
        assert roles == {alice: "admin", bob: "owner", carol: "admin"}
        assert a.refused("groups.transfer", group_id=group, user_id=alice) == "not_authorized"
        a.rpc("groups.leave", group_id=group)
        assert_same(b, c)


def test_dismiss(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        group = make(a1, bob)
        b1.post(group, "last words")
        assert b1.refused("groups.dismiss", group_id=group) == "not_authorized"
        a1.rpc("groups.dismiss", group_id=group)
        for device in (a1, a2, b1, b2):
            assert events(device, group)[-1] == "group_dismissed"
        b2.post(group, "too late")
        assert b2.error()["code"] == "dismissed"
        assert a1.refused("groups.add", group_id=group, user_ids=[bob]) == "dismissed"
        assert b1.rpc("groups.list")["groups"] == []
        history = b1.rpc("messages.history", conversation_id=f"g:{group}")["messages"]
        assert history[-2]["content"] == "last words"
        assert_same(a1, a2, b1, b2)
        # its owner may use the id again: what the old members said is not for the new ones
        assert b1.refused("groups.create", group_id=group) == "exists"
        a1.rpc("groups.create", group_id=group)
        assert b1.rpc("groups.get", group_id=group)["role"] == ""
        assert len(a1.rpc("messages.history", conversation_id=f"g:{group}")["messages"]) == 1


def test_an_id_is_used_again_before_the_end_is_told(make_node) -> None:  # type: ignore[no-untyped-def]
    """The dismissal is in the directory, and its entry waits for the message store."""
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, each=2) as (a1, a2), Device(node, bob) as b:
        group = make(a1)
        end = json.dumps({"group_id": group, "request_id": "end"}).encode()
        again = json.dumps({"group_id": group, "request_id": "again", "members": [bob]}).encode()
        with closing(sqlite3.connect(node.data_dir / "parley.db", isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            a1.client.send(publish(f"users/{alice}/rpc/groups.dismiss", end))
            wait_for(lambda: dismissed(node, group), "the dismissal")
            a2.client.send(publish(f"users/{alice}/rpc/groups.create", again))
            blocker.execute("ROLLBACK")
        b.until(lambda: b.group(group), "the new group")
        assert events(b, group) == ["group_created"]
        assert_same(b)


def dismissed(node: Node, group: str) -> bool:
    with closing(sqlite3.connect(node.data_dir / "directory.db")) as directory:
        return bool(
            directory.execute("SELECT dismissed_at FROM groups WHERE group_id = ?", (group,)).fetchone()[0]
        )


@pytest.mark.parametrize("members", [2, 40])
def test_quota(make_node, members: int) -> None:  # type: ignore[no-untyped-def]
    node = make_node(f"limits.group_members={members}").start()
    alice = node.user("alice")
    others = [node.user("m") for _ in range(members)]
    with Device(node, alice) as a:
        assert a.refused("groups.create", members=others) == "quota"
        group = make(a, *others[:-1])
        assert a.refused("groups.add", group_id=group, user_ids=others[-1:]) == "quota"
        a.rpc("groups.remove", group_id=group, user_ids=others[:1])
        a.rpc("groups.add", group_id=group, user_ids=others[-1:])
        assert a.rpc("groups.get", group_id=group)["members"] == members


def test_many_join_at_once(node: Node) -> None:
    alice = node.user("alice")
    users = [node.user("guest") for _ in range(25)]
    with devices(node, alice, *users, each=1) as (a, *guests):
        group = make(a, join="open")
        in_threads([partial(guest.rpc, "groups.join", group_id=group) for guest in guests])
        assert a.rpc("groups.get", group_id=group)["members"] == 26
        assert events(a, group) == ["group_created"] + ["member_joined"] * 25
        assert_same(a)


def test_the_history_of_a_new_group_begins_with_it(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        group = make(a, bob)
        b.post(group, "of the old group")
        a.rpc("groups.dismiss", group_id=group)
        a.rpc("groups.create", group_id=group, history_visible=True)
        a.post(group, "of the new group")
        a.rpc("groups.add", group_id=group, user_ids=[carol])
        (log,) = c.sync().values()
        assert [entry["content"] for entry in log][1] == "of the new group"
        assert "of the old group" not in str(c.rpc("messages.history", conversation_id=f"g:{group}"))
