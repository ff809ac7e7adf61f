"""`imctl group …`."""

import asyncio
import json
from typing import Any

from cli.parsing import FOR_EVER
from tests.cli.fakes import NOW, FakeNode
from tests.cli.imctl import done, on, refused
from tests.ports.directories import add_many


def shown(node: FakeNode, group: str = "team") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done(on(node, "group", "show", group, "--json")))
    return found


def member(node: FakeNode, user: str) -> dict[str, Any]:
    return next(each for each in shown(node)["members"] if each["user_id"] == user)


def test_group_life(node: FakeNode) -> None:
    made = on(node, "group", "create", "new", "bob", "alice", "--owner", "alice", "--name", "Neu €")
    assert done(made) == "group new created with 2 members\n"
    assert done(on(node, "group", "add", "new", "carol", "bob")) == "1 member added to new\n"
    assert done(on(node, "group", "remove", "new", "bob", "carol")) == "2 members removed from new\n"
    assert json.loads(done(on(node, "group", "show", "new", "--json"))) == {
        "group_id": "new",
        "name": "Neu €",
        "avatar": "",
        "announcement": "",
        "owner": "alice",
        "muted_until": 0,
        "who_may_invite": "members",
        "who_may_post": "members",
        "join": "approval",
        "history_visible": False,
        "dismissed_at": 0,
        "created_at": NOW,
        "member_count": 1,
        "members": [{"user_id": "alice", "role": "owner", "joined_seq": 0, "muted_until": 0}],
    }
    assert json.loads(done(on(node, "group", "list", "--json")))[0] == {
        "group_id": "new",
        "name": "Neu €",
        "owner": "alice",
        "member_count": 1,
        "created_at": NOW,
        "dismissed_at": 0,
    }
    assert [line.split()[0] for line in done(on(node, "group", "list")).splitlines()] == [
        "GROUP",
        "new",
        "team",
    ]
    assert done(on(node, "group", "dismiss", "new", "--yes")) == "group new dismissed\n"
    assert refused(on(node, "group", "add", "new", "bob")) == "group new: the group was dismissed"
    assert "dismissed" in done(on(node, "group", "show", "new"))
    states = {line.split()[0]: line for line in done(on(node, "group", "list")).splitlines()}
    assert "dismissed" in states["new"]
    assert "active" in states["team"]
    assert json.loads(done(on(node, "group", "list", "--json")))[0]["dismissed_at"] == NOW


def test_new_members_begin_at_the_head_of_the_group(node: FakeNode) -> None:
    node.say("alice", "groups/team", "one", "two")
    done(on(node, "group", "add", "team", "carol"))
    assert member(node, "carol")["joined_seq"] == 2
    done(on(node, "group", "dismiss", "team", "--yes"))
    done(on(node, "group", "create", "team", "--owner", "alice"))
    assert member(node, "alice")["joined_seq"] == 4  # carol was added, the group dismissed


def test_a_large_group_is_shown_whole(node: FakeNode) -> None:
    users = [f"user-{number:05}" for number in range(2500)]
    asyncio.run(add_many(node.directory_file, users))
    done(on(node, "group", "add", "team", *users))
    assert [each["user_id"] for each in shown(node)["members"]] == ["alice", "bob", *users]
    assert len(done(on(node, "group", "show", "team")).splitlines()) == 15 + 2502


SETTINGS = (
    *("--avatar", "http://a/b.png", "--announcement", "Hello", "--who-may-invite", "admins"),
    *("--who-may-post", "admins", "--join", "open", "--history-visible"),
)


def test_settings(node: FakeNode) -> None:
    done(on(node, "group", "create", "new", "--owner", "alice", *SETTINGS))
    done(on(node, "group", "update", "team", "--name", "Us", *SETTINGS))
    for group, name in (("new", "new"), ("team", "Us")):
        found = shown(node, group)
        assert (found["name"], found["avatar"], found["announcement"]) == (name, "http://a/b.png", "Hello")
        assert (found["who_may_invite"], found["who_may_post"]) == ("admins", "admins")
        assert (found["join"], found["history_visible"]) == ("open", True)
    words = " ".join(done(on(node, "group", "show", "team")).split())
    for said in ("announcement Hello", "who may post admins", "join open", "visible to new members"):
        assert said in words
    done(on(node, "group", "update", "team", "--no-history-visible", "--avatar", "", "--as", "alice"))
    found = shown(node)
    assert (found["avatar"], found["history_visible"], found["join"]) == ("", False, "open")


def test_roles_and_owner(node: FakeNode) -> None:
    made = on(node, "group", "role", "team", "bob", "admin", "--as", "alice")
    assert done(made) == "bob is an admin of team\n"
    assert member(node, "bob")["role"] == "admin"
    assert done(on(node, "group", "transfer", "team", "bob")) == "group team belongs to bob\n"
    assert shown(node)["owner"] == "bob"
    assert done(on(node, "group", "role", "team", "alice", "member")) == "alice is a member of team\n"
    assert [member(node, user)["role"] for user in ("alice", "bob")] == ["member", "owner"]
    assert "not allowed" in refused(on(node, "group", "dismiss", "team", "--as", "alice", "--yes"))
    done(on(node, "group", "dismiss", "team", "--as", "bob", "--yes"))


def test_mute(node: FakeNode) -> None:
    assert done(on(node, "group", "mute", "team", "bob")) == "bob in team muted for ever\n"
    assert "for ever" in done(on(node, "group", "show", "team"))
    assert "muted" in refused(on(node, "send", "g:team", "hi", "--as", "bob"))
    assert done(on(node, "group", "unmute", "team", "bob", "--as", "alice")) == "bob in team unmuted\n"
    done(on(node, "send", "g:team", "hi", "--as", "bob"))
    assert done(on(node, "group", "mute", "team", "--for", "30m")).startswith("group team muted until 2")
    assert shown(node)["muted_until"] > NOW
    assert "muted" in refused(on(node, "send", "g:team", "hi", "--as", "bob"))
    done(on(node, "send", "g:team", "hi", "--as", "alice"))
    assert done(on(node, "group", "unmute", "team")) == "group team unmuted\n"
    done(on(node, "group", "mute", "team", "bob", "--for", "99999999999d"))
    assert "for ever" in done(on(node, "group", "show", "team"))


def test_ban(node: FakeNode) -> None:
    assert done(on(node, "group", "ban", "team", "bob")) == "bob banned from team for ever\n"
    banned = on(node, "group", "ban", "team", "carol", "--for", "7d", "--as", "alice")
    assert done(banned).startswith("carol banned from team until 2")
    bans = json.loads(done(on(node, "group", "bans", "team", "--json")))
    assert bans[0] == {"user_id": "bob", "until": 0}
    assert bans[1]["until"] > NOW
    lines = done(on(node, "group", "bans", "team")).splitlines()
    words = [line.split()[:2] for line in lines]
    assert words == [["USER", "BANNED"], ["bob", "for"], ["carol", "until"]]
    assert "banned" in refused(on(node, "group", "join", "team", "--as", "bob"))
    assert "bob is banned" in refused(on(node, "group", "add", "team", "bob"))
    assert done(on(node, "group", "unban", "team", "bob")) == "bob may come back to team\n"
    done(on(node, "group", "add", "team", "bob"))


def test_join_and_leave(node: FakeNode) -> None:
    asked = on(node, "group", "join", "team", "--as", "carol", "--note", "let me in")
    assert done(asked) == "carol has asked to join team\n"
    requests = json.loads(done(on(node, "group", "requests", "team", "--json")))
    assert requests == [{"user_id": "carol", "note": "let me in", "created_at": NOW}]
    assert "let me in" in done(on(node, "group", "requests", "team", "--as", "alice"))
    assert done(on(node, "group", "reject", "team", "carol")) == "carol rejected by team\n"
    assert json.loads(done(on(node, "group", "requests", "team", "--json"))) == []
    done(on(node, "group", "join", "team", "--as", "carol"))
    accepted = on(node, "group", "accept", "team", "carol", "--as", "alice")
    assert done(accepted) == "carol accepted in team\n"
    assert done(on(node, "group", "leave", "team", "--as", "carol")) == "carol left team\n"
    done(on(node, "group", "update", "team", "--join", "open"))
    assert done(on(node, "group", "join", "team", "--as", "carol")) == "carol joined team\n"
    removed = on(node, "group", "remove", "team", "carol", "--as", "alice")
    assert done(removed) == "1 member removed from team\n"


def test_members_by_a_user_follow_the_rules(node: FakeNode) -> None:
    assert done(on(node, "group", "add", "team", "carol", "--as", "bob")) == "1 member added to team\n"
    assert "not allowed" in refused(on(node, "group", "remove", "team", "carol", "--as", "bob"))


def test_the_history_tells_what_happened(node: FakeNode) -> None:
    def do(user: str, method: str, **parameters: Any) -> None:
        node.call(user, f"groups.{method}", group_id="team", **parameters)

    do("system", "add", user_ids=["carol"])
    do("alice", "set_role", user_id="bob", role="admin")
    do("bob", "mute", user_id="carol", until=FOR_EVER)
    do("system", "mute", user_id="carol", until=0)
    do("alice", "update", join="closed", name="Us")
    do("system", "mute", until=NOW)
    do("system", "mute", until=0)
    do("system", "ban", user_id="carol")
    do("alice", "transfer", user_id="bob")
    do("alice", "leave")
    do("bob", "dismiss")
    rows = [line.split(maxsplit=6) for line in done(on(node, "history", "g:team")).splitlines()[1:]]
    assert {row[5] for row in rows} == {"system"}
    said = [row[6] for row in rows]
    assert said.pop(5).startswith("system muted the group until 2025-11-2")
    assert said == [
        "system added carol",
        "alice made bob admin",
        "bob muted carol for ever",
        "system unmuted carol",
        "alice changed the group: name: Us, join: closed",
        "system unmuted the group",
        "system banned carol",
        "alice made bob the owner",
        "alice left",
        "bob dismissed the group",
    ]
