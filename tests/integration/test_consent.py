"""A block, `who_may_message` and `who_may_add_me` hold for groups, too; who has left comes back only by
their own doing; no text reaches somebody who accepts none from its author."""

from typing import Any

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import CallError, Device, assert_same, devices
from tests.integration.node import Node
from tests.integration.test_contacts import befriend, contacts

TEXT = "buy-my-pills"
"""What a stranger has to say. It is an id, too."""


def group_of(device: Device, *members: Device, **settings: Any) -> str:
    view = device.rpc("groups.create", members=[member.user for member in members], **settings)
    return str(view["group_id"])


def everything(device: Device) -> str:
    """All that a user can have been told."""
    device.settle()
    lists = ("conversations.list", "groups.list", "contacts.list")
    told = [device.rpc(method, **({"state": "all"} if method == "contacts.list" else {})) for method in lists]
    return str([device.entries, device.events, device.sync(), told])


def detail(device: Device, method: str, **parameters: Any) -> str:
    with pytest.raises(CallError) as raised:
        device.rpc(method, **parameters)
    return str(raised.value)


# --- groups --------------------------------------------------------------------------


def test_a_block_holds_for_groups(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        befriend(a, b)
        group = group_of(b, c)
        a.rpc("contacts.block", user_id=bob)
        assert "blocked" in detail(b, "groups.create", name=TEXT, members=[carol, alice])
        assert b.refused("groups.add", group_id=group, user_ids=[alice]) == "blocked"
        # Either may have blocked the other.
        assert group_of(a, c)
        assert a.refused("groups.create", members=[bob]) == "blocked"
        assert TEXT not in everything(a)
        assert a.rpc("groups.list")["groups"][0]["owner"] == alice
        assert not a.told("group")
        # A group that a contact puts both into is that contact's doing.
        befriend(a, c)
        both = group_of(c, a, b)
        assert {member["user_id"] for member in a.rpc("groups.members", group_id=both)["members"]} == {
            *(alice, bob, carol)
        }
        assert_same(a, b, c)


def test_ranks_and_mentions_ask_about_a_block(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = group_of(a, b)
        b.rpc("contacts.block", user_id=alice)
        assert a.refused("groups.transfer", group_id=group, user_id=bob) == "blocked"
        assert a.refused("groups.set_role", group_id=group, user_id=bob, role="admin") == "blocked"
        for sender, other in ((a, bob), (b, alice)):
            sender.post(group, {"content": "look here", "mentions": [other]})
            assert sender.error()["code"] == "blocked"
            sent = {"group_id": group, "content": "look here", "mentions": [other]}
            assert sender.refused("messages.send", **sent) == "blocked"
        a.post(group, {"content": "to all of you", "mentions": "all"})
        assert b.group(group)[-1]["content"] == "to all of you"
        # Whoever leads a group can lead it also against those who have blocked them.
        a.rpc("groups.mute", group_id=group, user_id=bob, until=2**50)
        a.rpc("groups.remove", group_id=group, user_ids=[bob])


@pytest.mark.parametrize(
    ("settings", "stranger", "contact"),
    [
        ({}, None, None),
        ({"who_may_message": "contacts"}, "not_contact", None),
        ({"who_may_add_me": "contacts"}, "not_contact", None),
        ({"who_may_add_me": "nobody"}, "not_authorized", "not_authorized"),
        ({"who_may_message": "contacts", "who_may_add_me": "everyone"}, "not_contact", None),
    ],
)
def test_who_may_add(node: Node, settings: dict[str, str], stranger: str | None, contact: str | None) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        befriend(a, c)
        a.rpc("users.update", **settings)
        for adder, code in ((b, stranger), (c, contact)):
            group = group_of(adder)
            if code is not None:
                assert adder.refused("groups.create", name=TEXT, members=[alice]) == code
                assert adder.refused("groups.add", group_id=group, user_ids=[alice]) == code
                assert alice in detail(adder, "groups.add", group_id=group, user_ids=[alice])
            else:
                adder.rpc("groups.add", group_id=group, user_ids=[alice])
                assert a.told("group", type="added", group_id=group, by=adder.user)
        assert TEXT not in everything(a)
        # One's own doing is not affected, nor is what administrators do.
        open_group = group_of(b, join="open")
        assert a.rpc("groups.join", group_id=open_group) == {"status": "joined"}
        asked = group_of(b)
        a.rpc("groups.join", group_id=asked)
        b.rpc("groups.accept", group_id=asked, user_id=alice)
        made = node.group(bob, alice)
        assert made in {group["group_id"] for group in a.rpc("groups.list")["groups"]}
        assert_same(a, b, c)


def test_the_setting_is_shown_and_kept(make_node) -> None:  # type: ignore[no-untyped-def]
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    with Device(node, alice) as a, Device(node, bob) as b:
        assert a.rpc("users.get")["users"][0]["privacy"]["who_may_add_me"] == "everyone"
        a.rpc("users.update", who_may_add_me="nobody")
        assert a.told("profile", who_may_add_me="nobody")
        assert "privacy" not in b.rpc("users.get", user_ids=[alice])["users"][0]
    node.kill()
    node.start()
    with Device(node, alice) as a, Device(node, bob) as b:
        assert a.rpc("users.get")["users"][0]["privacy"]["who_may_add_me"] == "nobody"
        assert b.refused("groups.create", members=[alice]) == "not_authorized"


@pytest.mark.parametrize("join", ["open", "approval", "closed"])
def test_who_has_left_comes_back_by_their_own_doing(node: Node, join: str) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        befriend(a, b)
        group = group_of(a, b, c, join=join)
        b.rpc("groups.leave", group_id=group)
        for adder in (a, c):
            assert adder.refused("groups.add", group_id=group, user_ids=[bob]) == "has_left"
        # A ban that is taken back does not make it forgotten.
        a.rpc("groups.ban", group_id=group, user_id=bob)
        a.rpc("groups.unban", group_id=group, user_id=bob)
        assert a.refused("groups.add", group_id=group, user_ids=[bob]) == "has_left"
        status = b.rpc("groups.join", group_id=group, note="may I come back?")["status"]
        assert status == ("joined" if join == "open" else "requested")
        if status == "requested":
            assert a.refused("groups.add", group_id=group, user_ids=[bob]) == "has_left"
            assert a.told("group", type="requested", by=bob)
            a.rpc("groups.accept", group_id=group, user_id=bob)
        # Who is removed by others has not left.
        a.rpc("groups.remove", group_id=group, user_ids=[bob])
        a.rpc("groups.add", group_id=group, user_ids=[bob])
        assert_same(a, c)


def test_no_other_group_with_the_same_id_brings_somebody_back(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = group_of(a, b)
        b.rpc("groups.leave", group_id=group)
        a.rpc("groups.dismiss", group_id=group)
        assert a.refused("groups.create", group_id=group, members=[bob]) == "has_left"
        a.rpc("groups.create", group_id=group)
        assert a.refused("groups.add", group_id=group, user_ids=[bob]) == "has_left"
        # Administrators act as before.
        request = pb.GroupMembersRequest(group_id=group, user_ids=[bob])
        assert node.call("AddGroupMembers", request).changed == 1


def test_who_left_is_known_after_a_restart(make_node) -> None:  # type: ignore[no-untyped-def]
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = group_of(a, b)
        b.rpc("groups.leave", group_id=group)
    node.kill()
    node.start()
    with Device(node, alice) as a:
        assert a.refused("groups.add", group_id=group, user_ids=[bob]) == "has_left"


# --- texts ---------------------------------------------------------------------------


def test_no_text_comes_with_a_contact_request(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        a.rpc("users.update", who_may_message="contacts")
        b.rpc("contacts.request", user_id=alice, note=TEXT)
        for inbox in (a.inbox, b.inbox):  # so who asks can see what was told
            assert inbox[-1]["content"] == {"event": "contact_requested", "by": bob, "user_id": alice}
        b.rpc("contacts.request", user_id=alice, note=f"{TEXT} now")
        assert contacts(a, state="received")[bob]["note"] == ""
        assert contacts(b, state="sent")[alice]["note"] == f"{TEXT} now"
        assert TEXT not in everything(a)
        a.rpc("users.update", who_may_message="everyone")
        assert contacts(a, state="received")[bob]["note"] == f"{TEXT} now"
        # The answer to a request was asked for.
        a.rpc("contacts.reject", user_id=bob, note="not today")
        assert b.inbox[-1]["content"]["note"] == "not today"
        assert_same(a, b)


def test_texts_of_join_requests_are_for_those_who_accept_messages(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        group = group_of(a, c)
        a.rpc("groups.set_role", group_id=group, user_id=carol, role="admin")
        a.rpc("users.update", who_may_message="contacts")
        b.rpc("groups.join", group_id=group, note=TEXT)
        (seen,) = c.rpc("groups.requests", group_id=group)["requests"]
        assert (seen["user_id"], seen["note"]) == (bob, TEXT)
        (seen,) = a.rpc("groups.requests", group_id=group)["requests"]
        assert (seen["user_id"], seen["note"]) == (bob, "")
        befriend(a, b)
        assert a.rpc("groups.requests", group_id=group)["requests"][0]["note"] == TEXT
        a.rpc("contacts.block", user_id=bob)
        assert a.rpc("groups.requests", group_id=group)["requests"][0]["note"] == ""


def test_a_ban_says_nothing_to_strangers(node: Node) -> None:
    """The event of a ban has the id of the group, which its owner has chosen."""
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = f"{TEXT}-{bob}"
        b.rpc("groups.create", group_id=group)
        for method in ("groups.ban", "groups.unban", "groups.ban"):
            b.rpc(method, group_id=group, user_id=alice)
        assert TEXT not in everything(a)


def test_admins_are_not_told_of_those_they_block(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        group = group_of(a, c)
        a.rpc("groups.set_role", group_id=group, user_id=carol, role="admin")
        a.rpc("contacts.block", user_id=bob)
        b.rpc("groups.join", group_id=group, note=TEXT)
        assert c.told("group", type="requested", by=bob)
        assert not a.told("group")
        assert contacts(a, state="received") == {}


# --- again and again -----------------------------------------------------------------


def test_requests_that_are_made_again_do_not_fill_an_inbox(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        for number in range(5):
            b.rpc("contacts.request", user_id=alice, note=f"please {number}")
            b.rpc("contacts.remove", user_id=alice)
        b.rpc("contacts.request", user_id=alice)
        assert [entry["content"]["event"] for entry in a.inbox] == ["contact_requested"]
        assert len(b.inbox) == 1
        assert bob in contacts(a, state="received")
        # An answer ends it: what is asked then is another request.
        a.rpc("contacts.reject", user_id=bob)
        b.rpc("contacts.request", user_id=alice)
        a.rpc("contacts.accept", user_id=bob)
        b.rpc("contacts.remove", user_id=alice)
        b.rpc("contacts.request", user_id=alice)
        events = [entry["content"]["event"].removeprefix("contact_") for entry in a.inbox]
        assert events == ["requested", "rejected", "requested", "accepted", "requested"]
        assert_same(a, b)


def test_join_requests_that_are_made_again_tell_nobody(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = group_of(a)
        for number in range(5):
            assert b.rpc("groups.join", group_id=group, note=f"please {number}") == {"status": "requested"}
        assert len(a.told("group", type="requested")) == 1
        (request,) = a.rpc("groups.requests", group_id=group)["requests"]
        assert request["note"] == "please 4"


@pytest.mark.parametrize("how", ["remove", "ban"])
def test_a_member_is_not_added_again_and_again(make_node, how: str) -> None:  # type: ignore[no-untyped-def]
    """Each time is two events for them, which displace what others have told them."""
    node = make_node("limits.repeats_per_hour=3").start()
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        group = group_of(a, b, c)

        def out(who: str) -> None:
            if how == "remove":
                a.rpc("groups.remove", group_id=group, user_ids=[who])
            else:
                a.rpc("groups.ban", group_id=group, user_id=who)
                a.rpc("groups.unban", group_id=group, user_id=who)

        for _ in range(2):
            out(bob)
            a.rpc("groups.add", group_id=group, user_ids=[bob])
        out(bob)  # is never refused
        assert a.refused("groups.add", group_id=group, user_ids=[bob]) == "quota"
        assert len(b.told("group")) == 6
        assert node.stats()["limited.repeats_per_hour"] == 1
        # Others are not affected, nor are other groups, nor bob's own doing.
        out(carol)
        a.rpc("groups.add", group_id=group, user_ids=[carol])
        assert group_of(a, b)
        b.rpc("groups.join", group_id=group)
        a.rpc("groups.accept", group_id=group, user_id=bob)


def test_joins_and_repeats_are_limited(make_node) -> None:  # type: ignore[no-untyped-def]
    """Whoever joins and leaves again and again would fill a group's log; whoever asks and withdraws, the
    events of a user."""
    node = make_node("limits.joins_per_hour=5", "limits.repeats_per_hour=3").start()
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        first, *others = [group_of(a, join="open") for _ in range(4)]
        for _ in range(3):
            b.rpc("groups.join", group_id=first)
            b.rpc("groups.leave", group_id=first)
            b.rpc("contacts.request", user_id=alice)
            b.rpc("contacts.remove", user_id=alice)
        assert b.refused("groups.join", group_id=first) == "quota"
        assert b.refused("contacts.request", user_id=alice) == "quota"
        assert node.stats()["limited.repeats_per_hour"] == 2
        for group in others[:2]:
            b.rpc("groups.join", group_id=group)
        assert b.refused("groups.join", group_id=others[2]) == "quota"
        assert node.stats()["limited.joins_per_hour"] == 1
        # Others are not affected, nor is who answers.
        a.rpc("contacts.request", user_id=bob)
        b.rpc("contacts.accept", user_id=alice)
