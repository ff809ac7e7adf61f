"""What somebody may not know is not told by another way: that a user is online, that a group exists."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.services import offered_operations
from tests.integration.im import Device, devices, private
from tests.integration.node import Node, password
from tests.integration.raw import RawClient, connect, subscribe
from tests.integration.test_contacts import befriend
from tests.unit.test_naming_others import naming

# --- presence ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("are_contacts", "who", "tells"),
    [
        (False, "contacts", False),
        (False, "nobody", False),
        (False, "everyone", True),
        (True, "contacts", True),
        (True, "nobody", False),
    ],
)
def test_delivered_receipts_tell_no_more_than_the_presence(
    node: Node, are_contacts: bool, who: str, tells: bool
) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    where = private(alice, bob)
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        if are_contacts:
            befriend(a, b)
        b.rpc("users.update", who_sees_presence=who)
        c.rpc("users.update", who_sees_presence="everyone")
        a.say(bob, "are you there?")
        seq = b.inbox[-1]["seq"]  # and acknowledged
        b.rpc("messages.delivered", conversation_id=where, seq=seq)
        # What the PUBACKs tell is told within half a second: of bob's no later than of carol's.
        a.say(carol, "and you?")
        c.settle()
        a.until(lambda: a.told("receipt", status="delivered", user_id=carol), "carol's receipt")
        # Of this message: that the request to be contacts had arrived was told before the setting changed.
        assert bool(a.told("receipt", status="delivered", user_id=bob, seq=seq)) == tells
        assert bool(a.rpc("presence.get", user_ids=[bob])["presences"]) == tells
        # What was read is told as its own setting says: reading is what one does, being online is not.
        b.rpc("messages.read", conversation_id=where, seq=seq)
        assert a.told("receipt", status="read", user_id=bob, seq=seq)


# --- groups --------------------------------------------------------------------------

SAID = {"content": "hi"}
REST: dict[str, dict[str, Any]] = {
    "messages.send": SAID,
    "messages.edit": SAID,
    "messages.read": {"seq": 1},
    "messages.delivered": {"seq": 1},
    "groups.update": {"name": "Mine"},
    "groups.mute": {"until": 1},
    "groups.set_role": {"user_id": "{me}", "role": "admin"},
    "groups.transfer": {"user_id": "{me}"},
    "groups.add": {"user_ids": ["{me}"]},
    "groups.remove": {"user_ids": ["{me}"]},
    "groups.ban": {"user_id": "{me}"},
    "groups.unban": {"user_id": "{me}"},
    "groups.accept": {"user_id": "{me}"},
    "groups.reject": {"user_id": "{me}"},
    "conversations.set": {"pinned": True},
}
"""The other parameters of a call."""

BY_NATURE = {"groups.create"}
"""An id that is taken cannot be given again: whoever asks for it learns so. Such questions are counted."""


def calls(group: str, message: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every operation that can name a group or one of its messages."""
    for operation in offered_operations():
        name = operation.name
        named = naming(operation)
        rest = REST.get(name, {})
        if "group_id" in named and name not in BY_NATURE:
            yield name, {"group_id": group} | rest
        if "conversation_id" in named:
            yield name, {"conversation_id": f"g:{group}"} | rest
        if "id" in named:
            yield name, {"id": message} | rest
        if "cursors" in named:
            yield name, {"cursors": {f"groups/{group}": 0}}
        if "messages[].group_id" in named:
            yield name, {"messages": [{"group_id": group} | SAID]}
        if "reply_to" in named:
            yield name, {"user_id": "{me}", "reply_to": message} | SAID


def answers(device: Device, group: str, message: str) -> list[str]:
    """What a user gets to hear about a group, in every way, with the ids of the group taken out."""
    heard = []
    for name, parameters in calls(group, message):
        text = json.dumps(parameters).replace("{me}", device.user)
        reply = device.raw(name, text.encode())
        heard.append(f"{name}: {json.dumps(reply, sort_keys=True)}")
    for topic in (f"groups/{group}", f"groups/{group}/typing"):
        device.publish(topic, {"content": "hi"} if topic.endswith(group) else "")
        heard.append(str(device.error()))
        filters = (topic, f"{topic}/#", f"$share/us/{topic}")
        heard += [f"{wanted}: {granted(device, wanted)}" for wanted in filters]
        heard.append(f"will: {welcome(device, topic)}")
    return [each.replace(group, "GROUP").replace(message, "MESSAGE") for each in heard]


def granted(device: Device, topic: str) -> bytes:
    """The codes of a SUBACK, from a connection of its own."""
    with RawClient(device.node.port) as client:
        client.login("probe", device.user, password(device.user))
        client.send(subscribe(1, (topic, 1)))
        return client.expect(9).body[2:]


def welcome(device: Device, topic: str) -> bytes:
    """The CONNACK of a client with a will on a topic."""
    with RawClient(device.node.port) as client:
        client.send(connect("will", device.user, password(device.user), will=(topic, b"gone", 1, False)))
        return client.expect(2).body


def _closed(a: Device, b: Device) -> str:
    return str(a.rpc("groups.create", join="closed")["group_id"])


def _closed_and_banned(a: Device, b: Device) -> str:
    group = str(a.rpc("groups.create", members=[b.user])["group_id"])
    a.rpc("groups.ban", group_id=group, user_id=b.user)
    a.rpc("groups.update", group_id=group, join="closed")
    return group


def _closed_and_removed(a: Device, b: Device) -> str:
    group = str(a.rpc("groups.create", members=[b.user], join="closed")["group_id"])
    a.rpc("groups.remove", group_id=group, user_ids=[b.user])
    return group


def _dismissed(a: Device, b: Device) -> str:
    return str(a.rpc("groups.create", join="open")["group_id"])


def _dismissed_and_left(a: Device, b: Device) -> str:
    group = str(a.rpc("groups.create", members=[b.user])["group_id"])
    b.rpc("groups.leave", group_id=group)
    return group


@pytest.mark.parametrize(
    "make", [_closed, _closed_and_banned, _closed_and_removed, _dismissed, _dismissed_and_left]
)
def test_a_hidden_group_answers_as_if_it_did_not_exist(
    node: Node, make: Callable[[Device, Device], str]
) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = make(a, b)
        message = a.rpc("messages.send", group_id=group, content="secret")["id"]
        recalled = a.rpc("messages.send", group_id=group, content="more secret")["id"]
        a.rpc("messages.recall", id=recalled)
        if make in (_dismissed, _dismissed_and_left):
            a.rpc("groups.dismiss", group_id=group)
        nothing = "z" * len(group)
        expected = answers(b, nothing, "1" * len(message))
        for hidden in (message, recalled):
            assert answers(b, group, hidden) == expected
        assert "secret" not in str(b.sync())


def test_ids_that_are_taken_are_not_asked_for_without_end(make_node: Callable[..., Node]) -> None:
    node = make_node("limits.groups_per_hour=3").start()
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = _closed(a, b)
        codes = [b.refused("groups.create", group_id=group) for _ in range(4)]
        assert codes == ["exists", "exists", "exists", "quota"]


def test_unknown_members_of_a_table() -> None:
    """Each operation that names a group is called, with all that it needs."""
    called = {name for name, _ in calls("g", "1")}
    named = {
        operation.name
        for operation in offered_operations()
        if {"group_id", "conversation_id", "id", "cursors"} & naming(operation)
    }
    assert named - called == BY_NATURE
