"""Topics and operations follow the permission table, in each of its cells."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from bridge.core.operations import Caller
from bridge.handlers.conversation_details import ConversationDetails
from bridge.services import offered_operations
from broker.domain.permissions import GroupOperation, Rank, Relation, UserOperation
from broker.ports import Grant
from tests.unit.permission_world import (
    ALICE,
    USERS,
    States,
    World,
)
from tests.unit.test_permissions import (
    GROUPS,
    MESSAGES,
    PROFILES,
    group_answer,
    user_answer,
)

# --- topics --------------------------------------------------------------------------


@pytest.mark.parametrize("case", PROFILES)
@pytest.mark.parametrize("relation", USERS, ids=lambda it: it.name)
async def test_topics_of_users(relation: Relation, case: str) -> None:
    if relation is Relation.SELF and PROFILES[case] is None:
        return  # whoever publishes is somebody
    world = World()
    peer = world.people.stand(relation, PROFILES[case])
    gone = "not_found" if PROFILES[case] is None else ""
    for topic, operation in (("inbox", UserOperation.MESSAGE), ("typing", UserOperation.TYPE)):
        expected = gone or user_answer(operation, relation, case)
        assert await world.publish(f"users/{peer}/{topic}") == expected
    sees = user_answer(UserOperation.SEE_PRESENCE, relation, case) is None
    presence = f"users/{peer}/presence"
    assert (await world.rules.grant(ALICE, presence) is not None) == sees
    grant = await world.rules.grant(ALICE, "users/+/presence")
    assert grant is not None
    # A wildcard is narrowed to oneself and contacts.
    assert (presence in grant.topics) == (sees and relation in (Relation.SELF, Relation.CONTACT))


@pytest.mark.parametrize("dismissed", [False, True], ids=["", "dismissed"])
@pytest.mark.parametrize("case", GROUPS)
@pytest.mark.parametrize("rank", [rank for rank in Rank if rank is not Rank.SYSTEM], ids=lambda it: it.name)
async def test_topics_of_groups(rank: Rank, case: str, dismissed: bool) -> None:
    world = World()
    group, muted_until = GROUPS[case]
    world.people.sit(rank, replace(group, dismissed_at=int(dismissed)), muted_until)
    expected = group_answer(GroupOperation.POST, rank, case, dismissed=dismissed)
    assert await world.publish("groups/team") == expected
    assert await world.publish("groups/team/typing") == expected
    reads = group_answer(GroupOperation.READ, rank, case, dismissed=dismissed) is None
    assert (await world.rules.grant(ALICE, "groups/team") is not None) == reads
    grant: Grant | None = await world.rules.grant(ALICE, "groups/+")
    assert grant is not None
    assert ("groups/team" in grant.topics) == reads


# --- operations ----------------------------------------------------------------------

# What is asked, by the operation of the services. `{peer}` is the other user.
HERE = {"group_id": "team"}
OTHERS = [
    ("groups.add", HERE | {"user_ids": ["{peer}"]}, UserOperation.ADD),
    ("groups.set_role", HERE | {"user_id": "{peer}", "role": "admin"}, UserOperation.APPOINT),
    ("groups.transfer", HERE | {"user_id": "{peer}"}, UserOperation.APPOINT),
    ("groups.join", HERE, UserOperation.ASK_TO_JOIN),
    ("messages.send", HERE | {"mentions": ["{peer}"]}, UserOperation.MENTION),
]
"""What is asked about another user in a group: see tests/unit/test_naming_others.py."""
OF_USERS: list[tuple[str, dict[str, Any], UserOperation]] = [
    ("contacts.request", {"user_id": "{peer}"}, UserOperation.REQUEST),
    ("contacts.accept", {"user_id": "{peer}"}, UserOperation.ANSWER),
    ("contacts.reject", {"user_id": "{peer}"}, UserOperation.ANSWER),
    ("contacts.remove", {"user_id": "{peer}"}, UserOperation.REMOVE),
    ("contacts.remark", {"user_id": "{peer}", "remark": "x"}, UserOperation.REMARK),
    ("contacts.block", {"user_id": "{peer}"}, UserOperation.BLOCK),
    ("contacts.unblock", {"user_id": "{peer}"}, UserOperation.BLOCK),
    ("messages.edit", {"id": "1", "content": "x"}, UserOperation.EDIT),
    ("messages.recall", {"id": "1"}, UserOperation.RECALL),
    ("groups.create", {"members": ["{peer}"]}, UserOperation.ADD),
]
BOB = HERE | {"user_id": "bob"}
OF_GROUPS: list[tuple[str, dict[str, Any], GroupOperation]] = [
    ("messages.sync", {"cursors": {"groups/team": 0}}, GroupOperation.READ),
    ("messages.history", {"conversation_id": "g:team"}, GroupOperation.READ),
    ("messages.read", {"conversation_id": "g:team", "seq": 1}, GroupOperation.READ),
    ("messages.delivered", {"conversation_id": "g:team", "seq": 1}, GroupOperation.READ),
    ("messages.readers", {"id": "1"}, GroupOperation.READ),
    ("messages.read_counts", {"conversation_id": "g:team", "ids": ["1"]}, GroupOperation.READ),
    ("messages.edit", {"id": "1", "content": "x"}, GroupOperation.EDIT),
    ("messages.recall", {"id": "1"}, GroupOperation.RECALL),
    ("groups.get", HERE, GroupOperation.SEE),
    ("groups.members", HERE, GroupOperation.READ),
    ("groups.update", HERE | {"name": "New"}, GroupOperation.UPDATE),
    ("groups.add", HERE | {"user_ids": ["bob", "dave"]}, GroupOperation.INVITE),
    ("groups.join", HERE, GroupOperation.JOIN),
    ("groups.requests", HERE, GroupOperation.ANSWER),
    ("groups.accept", BOB, GroupOperation.ANSWER),
    ("groups.reject", BOB, GroupOperation.ANSWER),
    ("groups.leave", HERE, GroupOperation.LEAVE),
    ("groups.remove", HERE | {"user_ids": ["bob"]}, GroupOperation.REMOVE),
    ("groups.ban", BOB, GroupOperation.BAN),
    ("groups.bans", HERE, GroupOperation.BAN),
    ("groups.unban", HERE | {"user_id": "carol"}, GroupOperation.UNBAN),
    ("groups.mute", BOB | {"until": 1}, GroupOperation.MUTE),
    ("groups.mute", HERE | {"until": 1}, GroupOperation.MUTE_ALL),
    ("groups.set_role", BOB | {"role": "admin"}, GroupOperation.SET_ROLE),
    ("groups.transfer", BOB, GroupOperation.TRANSFER),
    ("groups.dismiss", HERE, GroupOperation.DISMISS),
]


def names(row: object) -> str | None:
    return row if isinstance(row, str) else getattr(row, "name", "")


@pytest.mark.parametrize(("name", "parameters", "operation"), OF_USERS, ids=names)
@pytest.mark.parametrize("relation", Relation, ids=lambda it: it.name)
async def test_operations_between_users(
    relation: Relation, name: str, parameters: dict[str, str], operation: UserOperation
) -> None:
    for case, profile in PROFILES.items():
        for cases, own, sent_at in MESSAGES:
            if profile is None or (relation is Relation.SELF and not own):
                continue  # the other is not there, which is not the table's to say; or it cannot be
            world = World()
            peer = world.people.stand(relation, profile)
            sender, to = ("alice", peer) if own else (peer, "alice")
            world.log.put(sender, f"users/{to}/inbox", sent_at)
            if name == "groups.create" and relation is Relation.SYSTEM:
                continue  # a group needs an owner
            given = with_peer(parameters, peer)
            code = await world.call(name, given, is_system=relation is Relation.SYSTEM)
            assert code == user_answer(operation, relation, case, *cases), (case, cases)


def with_peer(parameters: Mapping[str, Any], peer: str) -> dict[str, Any]:
    """The parameters, with the other user in the place of `{peer}`."""
    filled: dict[str, Any] = json.loads(json.dumps(parameters).replace("{peer}", peer))
    return filled


@pytest.mark.parametrize("case", PROFILES)
@pytest.mark.parametrize("relation", USERS, ids=lambda it: it.name)
async def test_what_others_are_told(relation: Relation, case: str) -> None:
    """Presence is left out, and receipts are not told, where the table says no."""
    profile = PROFILES[case]
    if profile is None:
        return
    world = World()
    peer = world.people.stand(relation, profile)
    shown = await world.operations.call(Caller("alice"), "presence.get", {"user_ids": [peer]})
    assert bool(shown.presences) == (user_answer(UserOperation.SEE_PRESENCE, relation, case) is None)
    if relation is Relation.SELF:
        return
    for name, operation in (
        ("messages.read", UserOperation.SEE_READ),
        ("messages.delivered", UserOperation.SEE_DELIVERED),
    ):
        world.broker.told.clear()
        receipt = {"conversation_id": "p:alice:bob", "seq": 1}
        await world.operations.call(Caller("bob"), name, receipt)
        assert ("alice" in world.broker.told) == (user_answer(operation, relation, case) is None)
    some: Any = States()
    (listed,) = await ConversationDetails(some, world.people).of("alice", ["p:alice:bob"], {})  # type: ignore[arg-type]
    wanted = (
        3 if user_answer(UserOperation.SEE_READ, relation, case) is None else 0,
        4 if user_answer(UserOperation.SEE_DELIVERED, relation, case) is None else 0,
    )
    assert (listed.peer_read_seq, listed.peer_delivered_seq) == wanted, "what is not told is not listed"


@pytest.mark.parametrize("dismissed", [False, True], ids=["", "dismissed"])
@pytest.mark.parametrize(("name", "parameters", "operation"), OF_GROUPS, ids=names)
@pytest.mark.parametrize("rank", Rank, ids=lambda it: it.name)
async def test_operations_in_groups(
    rank: Rank, name: str, parameters: dict[str, Any], operation: GroupOperation, dismissed: bool
) -> None:
    for case, (group, muted_until) in GROUPS.items():
        for cases, own, sent_at in MESSAGES:
            if name == "messages.readers" and not own:
                continue  # who has read a message is for its sender, which is not the table's to say
            world = World()
            world.people.users |= {"dave", "carol"}
            world.people.sit(rank, replace(group, dismissed_at=int(dismissed)), muted_until)
            world.log.put("alice" if own else "bob", "groups/team", sent_at)
            expected = group_answer(operation, rank, case, *cases, dismissed=dismissed)
            if expected == "not_member" and name.startswith("messages.") and "id" in parameters and not own:
                expected = "not_found"  # only the sender of a message is told that it is there
            code = await world.call(name, parameters, is_system=rank is Rank.SYSTEM)
            assert code == expected, (case, cases)


def test_every_operation_is_asked_above() -> None:
    asked = {operation for *_, operation in OF_USERS}
    asked |= {operation for *_, operation in OF_GROUPS}
    asked |= {UserOperation.MESSAGE, UserOperation.TYPE, GroupOperation.POST}
    asked |= {UserOperation.SEE_PRESENCE, UserOperation.SEE_READ, UserOperation.SEE_DELIVERED}
    asked |= {operation for *_, operation in OTHERS}
    assert asked == set(UserOperation) | set(GroupOperation)


def test_the_operations_of_a_node_are_those_that_are_listed() -> None:
    assert [each.name for each in World().operations] == [each.name for each in offered_operations()]
