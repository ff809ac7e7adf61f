"""`imctl` on profiles, presence, connections, contacts and conversations."""

import json
from typing import Any

import msgspec
import pytest

from broker.domain.message import Content, draft
from broker.domain.topics import parse_topic, presence_topic
from broker.ports import Device, QueuedMessage, Retained, Saved, SessionKey, SessionState
from cli.output import local_time
from tests.cli.fakes import NOW, FakeNode
from tests.cli.imctl import done, on, refused
from tests.subscribed import subscribed


def listed(node: FakeNode, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(done(on(node, *arguments, "--json")))
    return found


def words(node: FakeNode, *arguments: str) -> list[list[str]]:
    """A table's lines, without its header."""
    return [line.split() for line in done(on(node, *arguments)).splitlines()[1:]]


# --- profiles ----------------------------------------------------------------------------


def test_profile(node: FakeNode) -> None:
    privacy = {
        "who_may_message": "everyone",
        "who_sees_presence": "contacts",
        "read_receipts": True,
        "who_may_add_me": "everyone",
    }
    profile = {"user_id": "bob", "name": "", "avatar": "", "privacy": privacy}
    assert json.loads(done(on(node, "user", "profile", "bob", "--json"))) == profile
    options = ("--name", "Bob €", "--avatar", "http://b/o.b", "--who-may-message", "contacts")
    changed = on(node, "user", "update", "bob", *options, "--who-sees-presence", "nobody")
    assert done(changed) == "profile of bob updated\n"
    done(on(node, "user", "update", "bob", "--no-read-receipts", "--who-may-add-me", "contacts"))
    shown = " ".join(done(on(node, "user", "profile", "bob")).split())
    assert shown == (
        "user bob name Bob € avatar http://b/o.b who may message contacts "
        "who may add to groups contacts who sees presence nobody read receipts off"
    )
    assert "their contacts only" in refused(on(node, "send", "bob", "hi", "--as", "alice"))
    done(on(node, "user", "update", "bob", "--read-receipts", "--who-may-message", "everyone"))
    done(on(node, "send", "bob", "hi", "--as", "alice"))


# --- presence and connections ------------------------------------------------------------


def test_presence(node: FakeNode) -> None:
    document = {"user_id": "bob", "status": "away", "last_seen": NOW, "devices": 2}
    node.ask(node.states.apply([Retained(presence_topic("bob"), json.dumps(document).encode(), 1)]))
    nobody = {"user_id": "alice", "status": "offline", "last_seen": 0, "devices": 0}
    assert listed(node, "presence", "bob", "alice", "bob") == [document, nobody]
    bob, alice = words(node, "presence", "bob", "alice")
    assert bob[:3] == ["bob", "away", "2"]
    assert alice == ["alice", "offline", "0", "never"]


def test_sessions_and_kick(node: FakeNode) -> None:
    node.broker.online = [
        Device("bob", "phone 1", "192.0.2.7:5000", NOW, True, 2, 1, 7, "gateway-1"),
        Device("alice", "laptop", "192.0.2.8:5001", NOW),
        Device("", "sensor", "[2001:db8::1]:5002", NOW),
        Device("bob", "browser", "192.0.2.7:5003", NOW),
    ]
    assert [each["client_id"] for each in listed(node, "sessions")] == [
        *("sensor", "laptop", "browser", "phone 1")
    ]
    date, time = local_time(NOW).split()
    assert words(node, "sessions", "bob") == [
        ["bob", "browser", "online", date, time, "-", "0", "192.0.2.7:5003", "-"],
        ["bob", "phone", "1", "online", date, time, "1", "7", "192.0.2.7:5000", "gateway-1"],
    ]
    assert words(node, "sessions")[0][:3] == ["(anonymous)", "sensor", "online"]
    assert listed(node, "sessions", "bob", "--filter", "client=phone*") == [
        {
            "user_id": "bob",
            "client_id": "phone 1",
            "address": "192.0.2.7:5000",
            "state": "online",
            "since": NOW,
            "persistent": True,
            "subscriptions": 2,
            "qos": 1,
            "backlog": 7,
            "node": "gateway-1",
        }
    ]
    assert done(on(node, "kick", "bob")) == "2 connections of bob ended\n"
    assert done(on(node, "kick", "bob")) == "0 connections of bob ended\n"
    assert listed(node, "sessions", "bob") == []
    assert len(listed(node, "sessions")) == 2


def store(node: FakeNode, *keys: tuple[str, str]) -> None:
    """Sessions with a subscription to the inbox, that have read one of its entries."""
    for user, client_id in keys:
        inbox = f"users/{user}/inbox"
        queue = [QueuedMessage("open/a", b"x", 1)]
        filters = subscribed({inbox: 1, "groups/+": 2, "open/#": 0})
        state = SessionState(filters, {inbox: 1}, [], [], queue)
        node.ask(node.states.apply([Saved(SessionKey(user, client_id), state, NOW)]))


def test_sessions_that_are_away(node: FakeNode) -> None:
    node.say("alice", "users/bob/inbox", "one", "two", "three")
    node.say("alice", "groups/team", "four")
    node.broker.online = [Device("bob", "laptop", "192.0.2.8:5001", NOW, True, 3, 2, 0)]
    store(node, ("bob", "laptop"), ("bob", "phone"), ("carol", "phone"), ("", "sensor"))
    found = {(each["user_id"], each["client_id"]): each for each in listed(node, "sessions")}
    assert {key: (each["state"], each["backlog"]) for key, each in found.items()} == {
        ("", "sensor"): ("away", 1),
        ("bob", "laptop"): ("online", 0),
        ("bob", "phone"): ("away", 4),  # two of the inbox, one of the group, one queued
        ("carol", "phone"): ("away", 1),
    }
    phone = found["bob", "phone"]
    assert (phone["qos"], phone["since"], phone["address"], phone["subscriptions"]) == (2, NOW, "", 3)

    def clients(*options: str) -> list[str]:
        return [each["client_id"] for each in listed(node, "sessions", *options)]

    assert clients("--state", "away") == ["sensor", "phone", "phone"]
    assert clients("--state", "online") == ["laptop"]
    assert clients("bob", "--state", "away") == ["phone"]
    assert clients("--filter", "state=away", "--filter", "user=c*") == ["phone"]
    assert clients("bob", "--limit", "1") == ["laptop"]


def test_many_sessions_come_in_pages(node: FakeNode) -> None:
    node.broker.online = [
        Device("bob", f"c{number:04}", "192.0.2.7:5000", NOW, True) for number in range(0, 2500, 2)
    ]
    stored = [("bob", f"c{number:04}") for number in range(1, 2500, 2)]
    store(node, *stored, ("bob", "c0000"), ("alice", "x"), ("carol", "x"))
    found = listed(node, "sessions", "bob")
    assert [each["client_id"] for each in found] == [f"c{n:04}" for n in range(2500)]
    assert [each["state"] for each in found] == ["online", "away"] * 1250
    away = listed(node, "sessions", "--state", "away")
    assert [each["client_id"] for each in away] == ["x", *(client_id for _, client_id in stored), "x"]


# --- contacts ----------------------------------------------------------------------------


def test_contacts(node: FakeNode) -> None:
    asked = on(node, "contact", "request", "bob", "--as", "alice", "--note", "hello")
    assert done(asked) == "contact requested of bob\n"
    assert listed(node, "contact", "list", "--as", "bob", "--state", "received") == [
        {
            "user_id": "alice",
            "state": "received",
            "blocked": False,
            "remark": "",
            "note": "hello",
            "name": "",
            "avatar": "",
            "updated_at": NOW,
        }
    ]
    assert listed(node, "contact", "list", "--as", "bob") == []
    assert done(on(node, "contact", "accept", "alice", "--as", "bob")) == "request of alice accepted\n"
    assert done(on(node, "contact", "remark", "bob", "Bobby", "--as", "alice")) == "remark on bob set\n"
    assert words(node, "contact", "list", "--as", "alice") == [["bob", "contact", "no", "Bobby"]]
    assert done(on(node, "contact", "remark", "bob", "", "--as", "alice")) == "remark on bob removed\n"
    assert done(on(node, "contact", "remove", "bob", "--as", "alice")) == "contact bob removed\n"
    assert listed(node, "contact", "list", "--as", "bob", "--state", "all") == []


def test_a_request_that_crosses_another_accepts_it(node: FakeNode) -> None:
    done(on(node, "contact", "request", "bob", "--as", "alice"))
    done(on(node, "contact", "request", "alice", "--as", "bob"))
    assert [each["user_id"] for each in listed(node, "contact", "list", "--as", "alice")] == ["bob"]


def test_reject(node: FakeNode) -> None:
    done(on(node, "contact", "request", "bob", "--as", "alice"))
    rejected = on(node, "contact", "reject", "alice", "--as", "bob", "--note", "no")
    assert done(rejected) == "request of alice rejected\n"
    assert listed(node, "contact", "list", "--as", "alice", "--state", "sent") == []


def test_block(node: FakeNode) -> None:
    assert done(on(node, "contact", "block", "alice", "--as", "bob")) == "alice blocked\n"
    assert words(node, "contact", "list", "--as", "bob", "--state", "blocked") == [["alice", "none", "yes"]]
    assert "blocked" in refused(on(node, "send", "bob", "hi", "--as", "alice"))
    assert done(on(node, "contact", "unblock", "alice", "--as", "bob")) == "alice unblocked\n"
    done(on(node, "send", "bob", "hi", "--as", "alice"))


# --- conversations -----------------------------------------------------------------------


def test_conversations(node: FakeNode) -> None:
    node.say("alice", "users/bob/inbox", "one", "two")
    node.clock.now += 1000
    node.say("alice", "groups/team", "three")
    team, private = listed(node, "conversations", "--as", "bob")
    assert (team["conversation_id"], private["conversation_id"]) == ("g:team", "p:alice:bob")
    assert (private["head_seq"], private["unread"], private["active_at"]) == (2, 2, NOW)
    assert private["last_message"]["content"] == "two"
    done(on(node, "read", "p:bob:alice", "1", "--as", "bob"))
    rows = words(node, "conversations", "--as", "bob")
    assert [(row[:-6], row[-6:-3], row[-1]) for row in rows] == [
        (["The", "team", "g:team"], ["1", "0", "1"], "-"),
        (["alice", "p:alice:bob"], ["1", "1", "2"], "-"),
    ]
    since = str(NOW + 999)
    found = listed(node, "conversations", "--as", "alice", "--since", since)
    assert [each["conversation_id"] for each in found] == ["g:team"]


def test_conversations_by_their_names(node: FakeNode) -> None:
    node.say("alice", "users/bob/inbox", "one")
    node.say("alice", "groups/team", '{"content":"bob?","mentions":["bob"]}')

    def named() -> list[tuple[str, str]]:
        rows = words(node, "conversations", "--as", "bob", "--filter", "conversation=p:*")
        rows += words(node, "conversations", "--as", "bob", "--filter", "conversation=g:*")
        return [(" ".join(row[: row.index(where)]), where) for row, where in zip(rows, ids, strict=True)]

    ids = ["p:alice:bob", "g:team"]
    assert named() == [("alice", "p:alice:bob"), ("The team", "g:team")]
    done(on(node, "user", "update", "alice", "--name", "Alice Smith"))
    assert named()[0][0] == "Alice Smith"
    done(on(node, "contact", "remark", "alice", "my Alice", "--as", "bob"))
    assert named()[0][0] == "my Alice"
    (row,) = words(node, "conversations", "--as", "bob", "--filter", "mentioned")
    assert ("g:team" in row, row[-1]) == (True, "mentioned")


@pytest.mark.parametrize("conversation", ["p:alice:bob", "p:bob:alice"])
def test_conversation_set(node: FakeNode, conversation: str) -> None:
    node.say("alice", "users/bob/inbox", "one")
    change = ("conversation", "set", conversation, "--as", "bob")
    marked = on(node, *change, "--pin", "--mute", "--hide", "--unread")
    assert done(marked) == "p:alice:bob of bob: pinned, muted, hidden, unread\n"
    visible = [each["conversation_id"] for each in listed(node, "conversations", "--as", "bob")]
    assert conversation not in visible
    every = listed(node, "conversations", "--as", "bob", "--hidden")
    assert {"pinned": True, "muted": True, "hidden": True, "marked_unread": True}.items() <= every[0].items()
    assert done(on(node, *change, "--unmute", "--show")) == "p:alice:bob of bob: pinned, unread\n"
    assert done(on(node, *change, "--unpin", "--read")) == "p:alice:bob of bob: no marks\n"


def test_many_conversations_come_in_pages(node: FakeNode) -> None:
    async def speak() -> None:
        topics = [parse_topic(f"users/u{number:04}/inbox") for number in range(700)]
        said = Content(msgspec.Raw(b'"hi"'))
        await node.broker.append([draft("alice", topic, said) for topic in topics])

    node.ask(speak())
    found = [each["conversation_id"] for each in listed(node, "conversations", "--as", "alice")]
    assert len(set(found)) == len(found) == 700
