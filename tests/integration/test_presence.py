"""Presence for contacts: told without being asked, hidden from others, calm about reconnects."""

import time

from tests.integration.im import Device, devices
from tests.integration.node import Node
from tests.integration.test_contacts import befriend


def test_contacts_learn_of_each_other(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol) as (a1, a2, b1, b2, c1, _):
        befriend(a1, b1)
        for device in (b1, b2):
            device.until(lambda device=device: alice in device.presences, "the new contact's presence")
        a2.close()
        for device in (b1, b2):
            device.until(lambda device=device: device.presences[alice]["devices"] == 1, "a device to go")
            device.until(lambda device=device: device.told("presence", user_id=alice, devices=1), "the event")
        a1.publish(f"users/{alice}/presence", {"status": "away"})
        b1.until(lambda: b1.presences[alice]["status"] == "away", "the claimed status")
        a1.close()
        b1.until(lambda: b1.presences[alice]["status"] == "offline", "offline")
        b1.until(lambda: b1.told("presence", user_id=alice, status="offline"), "the event")
        assert alice not in c1.settle().presences
        assert not c1.told("presence", user_id=alice)


def test_a_short_break_is_no_change(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        befriend(a, b)
        b.until(lambda: alice in b.presences, "the presence")
        seen = b.presences[alice]
        told = len(b.told("presence", user_id=alice))
        for _ in range(3):
            a.vanish()
            a.connect()
        # well after the breaks: the presence of then would have come before this answer
        started = time.monotonic()
        b.until(lambda: time.monotonic() - started > 3.5, "the time of grace to pass")
        assert b.presences[alice] == seen
        assert len(b.told("presence", user_id=alice)) == told


def test_get(node: Node) -> None:
    alice, bob, carol, dave = (node.user(name) for name in ("alice", "bob", "carol", "dave"))
    with devices(node, alice, bob, each=1) as (a, b), Device(node, carol, "phone") as c:
        befriend(a, b)
        c.rpc("users.update", who_sees_presence="everyone")
        found = a.rpc("presence.get", user_ids=[bob, carol, dave, alice, "nobody"])["presences"]
        presences = {presence["user_id"]: presence for presence in found}
        assert set(presences) == {alice, bob, carol}, "strangers and who does not exist are left out"
        assert (presences[bob]["status"], presences[bob]["devices"]) == ("online", 1)
        assert presences[bob]["last_seen"] > 1_700_000_000_000
        b.rpc("users.update", who_sees_presence="nobody")
        assert a.rpc("presence.get", user_ids=[bob])["presences"] == []
        assert a.refused("presence.get", user_ids=[]) == "invalid_params"
        assert len(a.rpc("presence.get", user_ids=[alice] * 1000)["presences"]) == 1
        assert a.refused("presence.get", user_ids=[alice] * 1001) == "invalid_params"


def test_last_seen_of_who_is_gone(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        befriend(a, b)
        b.close()
        a.until(lambda: a.presences.get(bob, {}).get("status") == "offline", "offline")
        (presence,) = a.rpc("presence.get", user_ids=[bob])["presences"]
        assert (presence["status"], presence["devices"]) == ("offline", 0)
        assert abs(presence["last_seen"] / 1000 - time.time()) < 60


def test_privacy_of_presence(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        befriend(a, b)
        b.until(lambda: alice in b.presences, "the presence")
        a.rpc("users.update", who_sees_presence="nobody")
        a.publish(f"users/{alice}/presence", {"status": "busy"})
        a.until(lambda: a.presences[alice]["status"] == "busy", "one's own presence")
        assert b.settle().presences[alice]["status"] == "online"
        a.rpc("users.update", who_sees_presence="contacts")
        b.until(lambda: b.presences[alice]["status"] == "busy", "the presence again")


def test_contacts_for_a_session_that_was_away(node: Node) -> None:
    """`users/+/presence` follows contacts that were made while the device was gone."""
    alice, bob = node.user("alice"), node.user("bob")
    Device(node, bob).close()
    with Device(node, alice, "d0") as a, Device(node, bob, "other") as other:
        befriend(a, other)
        with Device(node, bob) as b:
            b.until(lambda: alice in b.presences, "the presence")
