"""Contacts: requests and answers, remarks, and blocks that stop everything both ways."""

from tests.integration.im import Device, assert_same, devices, private
from tests.integration.node import Node


def befriend(one: Device, other: Device) -> None:
    one.rpc("contacts.request", user_id=other.user)
    other.rpc("contacts.accept", user_id=one.user)


def contacts(device: Device, **parameters: str) -> dict[str, dict[str, object]]:
    found = device.rpc("contacts.list", **parameters)["contacts"]
    return {contact["user_id"]: contact for contact in found}


def test_request_and_accept(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        a1.rpc("contacts.request", user_id=bob, note="it's me")
        for device in (a1, a2, b1, b2):
            entry = device.inbox[-1]
            assert entry["type"] == "system"
            assert entry["content"] == {
                "event": "contact_requested",
                "by": alice,
                "user_id": bob,
                "note": "it's me",
            }
        assert contacts(a2, state="sent")[bob]["note"] == "it's me"
        assert contacts(b2, state="received")[alice]["note"] == "it's me"
        assert contacts(b2) == {}
        assert a2.told("contact", user_id=bob, state="sent")
        b1.rpc("contacts.accept", user_id=alice)
        for device in (a1, a2, b1, b2):
            assert device.inbox[-1]["content"]["event"] == "contact_accepted"
        assert list(contacts(a2)) == [bob]
        assert list(contacts(b2)) == [alice]
        assert a1.refused("contacts.request", user_id=bob) == "exists"
        assert_same(a1, a2, b1, b2)


def test_two_requests_meet(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        a.rpc("contacts.request", user_id=bob)
        b.rpc("contacts.request", user_id=alice)
        assert list(contacts(a)) == [bob]
        assert list(contacts(b)) == [alice]
        assert_same(a, b)


def test_reject_and_remove(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        a.rpc("contacts.request", user_id=bob)
        b.rpc("contacts.reject", user_id=alice, note="no")
        assert a.inbox[-1]["content"]["event"] == "contact_rejected"
        assert contacts(a, state="all") == {} == contacts(b, state="all")
        assert b.refused("contacts.accept", user_id=alice) == "not_found"
        befriend(a, b)
        b.rpc("contacts.remove", user_id=alice)
        assert contacts(a) == {} == contacts(b)
        assert a.told("contact", user_id=bob, state="none")
        assert a.refused("contacts.remove", user_id=bob) == "not_found"
        a.rpc("contacts.request", user_id=bob)
        a.rpc("contacts.remove", user_id=bob)
        assert contacts(b, state="received") == {}, "a request can be taken back"
        assert_same(a, b)


def test_remark(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        b.rpc("users.update", name="Robert", avatar="https://example.org/b.png")
        befriend(a, b)
        a.rpc("contacts.remark", user_id=bob, remark="Bobby")
        contact = contacts(a)[bob]
        assert (contact["remark"], contact["name"]) == ("Bobby", "Robert")
        assert contacts(b)[alice]["remark"] == ""


def test_block(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where = private(alice, bob)
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        befriend(a1, b1)
        a1.say(bob, "before")
        b1.until(lambda: a1.user in b1.presences, "the presence of a contact")
        known = len(b1.inbox)
        a1.rpc("contacts.block", user_id=bob)
        assert contacts(a2, state="blocked")[bob]["blocked"]
        # messages, both ways, at once, also where a device was allowed to write before
        for sender, to in ((b1, alice), (b2, alice), (a1, bob), (a2, bob)):
            sender.say(to, "not to be seen")
            assert sender.error()["code"] == "blocked"
            sender.publish(f"users/{to}/typing", {"typing": True})
            assert sender.error()["topic"] == f"users/{to}/typing"
        assert len(b1.inbox) == known
        assert not a1.typing
        assert not b1.typing
        # receipts
        b1.rpc("messages.read", conversation_id=where, seq=1)
        assert not a1.told("receipt", status="read")
        # presence
        assert b1.rpc("presence.get", user_ids=[alice])["presences"] == []
        assert a1.rpc("presence.get", user_ids=[bob])["presences"] == []
        a1.publish(f"users/{alice}/presence", {"status": "busy"})
        a2.until(lambda: a2.presences[alice]["status"] == "busy", "one's own presence")
        assert b1.settle().presences[alice]["status"] == "online"
        assert b1.refused("contacts.request", user_id=alice) == "blocked"
        # and back
        a1.rpc("contacts.unblock", user_id=bob)
        b1.say(alice, "after")
        assert a1.inbox[-1]["content"] == "after"
        b1.until(lambda: b1.presences[alice]["status"] == "busy", "the presence again")
        assert_same(a1, a2, b1, b2)


def test_contacts_only(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        c.say(alice, "a stranger may")
        a.rpc("users.update", who_may_message="contacts")
        befriend(a, b)
        b.say(alice, "a contact may")
        assert a.inbox[-1]["content"] == "a contact may"
        c.say(alice, "a stranger may not")
        assert c.error()["code"] == "not_contact"
        c.rpc("contacts.request", user_id=alice)
        assert a.inbox[-1]["content"]["event"] == "contact_requested"
        a.say(carol, "one may write to strangers oneself")
        assert c.inbox[-1]["from_user_id"] == alice
        a.rpc("contacts.remove", user_id=bob)
        b.say(alice, "no more")
        assert b.error()["code"] == "not_contact"
        assert_same(a, b, c)


def test_pages(node: Node) -> None:
    alice = node.user("alice")
    peers = sorted(node.user("peer") for _ in range(5))
    with Device(node, alice) as a:
        for peer in peers:
            a.rpc("contacts.request", user_id=peer)
        first = a.rpc("contacts.list", state="sent", limit=3)
        second = a.rpc("contacts.list", state="sent", limit=3, after=first["next"])
        found = [contact["user_id"] for contact in first["contacts"] + second["contacts"]]
        assert found == peers
        assert second["next"] == ""


def test_restart(make_node) -> None:  # type: ignore[no-untyped-def]
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        befriend(a, b)
        a.rpc("contacts.block", user_id=bob)
    node.kill()
    node.start()
    with devices(node, alice, bob, each=1) as (a, b):
        assert contacts(a)[bob]["blocked"]
        b.say(alice, "x")
        assert b.error()["code"] == "blocked"


def test_profile_changes_at_once(node: Node) -> None:
    alice = node.user("alice")
    with devices(node, alice, each=1) as (a,):
        a.together("users.update", [{"name": "Alice"}, {"who_may_message": "contacts"}, {"avatar": "a.png"}])
        view = a.rpc("users.get")["users"][0]
        assert (view["name"], view["avatar"]) == ("Alice", "a.png")
        assert view["privacy"]["who_may_message"] == "contacts"
