"""Topics and operations follow the permission table, in each of its cells."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from bridge.core.access import MessageLimits
from bridge.core.operations import Caller, Operations
from bridge.core.quotas import Quotas
from bridge.handlers.conversation_details import ConversationDetails
from bridge.services import Services, offered_operations
from broker.domain.directory import Account, Ban, Contact, Group, JoinRequest, Membership, Profile
from broker.domain.errors import RefusedError
from broker.domain.message import Content, draft, stamp
from broker.domain.permissions import GroupOperation, Rank, Relation, UserOperation
from broker.domain.topics import parse_topic
from broker.ports import ConversationState, Grant, Identity, Located, Retained, Watermark
from plugins.auth.rules import ContractRules
from tests.unit.test_permissions import (
    EDIT_MS,
    GROUPS,
    MESSAGES,
    NOW,
    PROFILES,
    RECALL_MS,
    group_answer,
    user_answer,
)
from tests.unit.test_rules import FewPeople

ALICE = Identity("alice")
CODES = {"blocked", "not_contact", "too_late", "muted", "not_member", "not_authorized", "exists"}
CODES |= {"banned", "is_owner", "dismissed", "invalid_params"}
"""The codes with which the table refuses. An operation checks everything else later."""
UNKNOWN = ("no group team", "no message 1")
"""What is said of a group that is not there, and of its messages. The table refuses in the same words."""

USERS = [relation for relation in Relation if relation is not Relation.SYSTEM]
"""How users stand to each other."""
INSIDE = (Rank.OWNER, Rank.ADMIN, Rank.MEMBER)


class WritingError(Exception):
    """An operation was allowed so far as to write something."""


class People(FewPeople):
    """Alice, who acts; bob, a member of the group `team`; and alice's rank in it."""

    def __init__(self) -> None:
        super().__init__()
        self.banned = False
        self.left: set[str] = set()
        self.requests = {"bob": "let me in"}
        self.memberships_of["bob"] = {"team": Membership("team", "bob", "member", 0)}

    def stand(self, relation: Relation, profile: Profile | None) -> str:
        """Set alice's relation to another user, and that user's settings. Returns the other user."""
        peer = "alice" if relation is Relation.SELF else "bob"
        if relation is Relation.CONTACT:
            self.befriend("alice", "bob")
        elif relation is Relation.BLOCKED:
            self.known["bob", "alice"] = Contact("bob", "alice", blocked=True)
        if profile is None:
            self.users -= {"bob"}
        else:
            self.profile_of[peer] = replace(profile, user_id=peer)
        return peer

    def sit(self, rank: Rank, group: Group, muted_until: int) -> None:
        """Set the group, and alice's rank in it."""
        self.group_of["team"] = group
        if rank in INSIDE:
            seat = Membership("team", "alice", rank.value, 0, muted_until)
            self.memberships_of["alice"] = {"team": seat}
        self.banned = rank is Rank.BANNED
        if rank is Rank.LEFT:
            self.left.add("alice")

    async def same_group(self, group_id: str) -> None:
        """It is free."""

    async def group(self, group_id: str) -> Group | None:
        return self.group_of.get(group_id)

    async def membership(self, group_id: str, user_id: str) -> Membership | None:
        return self.memberships_of.get(user_id, {}).get(group_id)

    async def members_by_id(self, group_id: str, users: Sequence[str]) -> dict[str, Membership]:
        found = {user: await self.membership(group_id, user) for user in users}
        return {user: member for user, member in found.items() if member is not None}

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        return [Membership("team", "bob", "member", 0)]

    async def ban(self, group_id: str, user_id: str) -> Ban | None:
        banned = user_id == "carol" or (user_id == "alice" and self.banned)
        return Ban(group_id, user_id) if banned else None

    async def bans_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Ban]:
        found = {user: await self.ban(group_id, user) for user in user_ids}
        return {user: ban for user, ban in found.items() if ban is not None}

    async def who_left(self, group_id: str, user_ids: Sequence[str]) -> set[str]:
        return self.left & set(user_ids)

    async def kept_mutes(self, group_id: str, user_ids: Sequence[str]) -> dict[str, int]:
        return {}

    async def bans(self, group_id: str, after: str, limit: int) -> list[Ban]:
        return []

    async def join_request(self, group_id: str, user_id: str) -> JoinRequest | None:
        asked = self.requests.get(user_id)
        return None if asked is None else JoinRequest(group_id, user_id, asked, 0)

    async def join_requests(self, group_id: str, after: str, limit: int) -> list[JoinRequest]:
        return [JoinRequest(group_id, user, note, 0) for user, note in self.requests.items()]

    async def admins(self, group_id: str) -> list[Membership]:
        return [seats[group_id] for seats in self.memberships_of.values() if seats[group_id].role == "owner"]

    async def account(self, user_id: str) -> Account | None:
        return Account(user_id) if user_id in self.users else None

    async def groups_by_id(self, group_ids: Sequence[str]) -> dict[str, Group]:
        return {}

    async def write_group(self, *_: object) -> None:
        raise WritingError

    async def write_contacts(self, *_: object) -> None:
        raise WritingError


class Logs:
    """A log whose one message is `message`, and nothing else."""

    def __init__(self) -> None:
        self.message: Located | None = None

    def put(self, sender: str, topic: str, sent_at: int) -> None:
        each = stamp(draft(sender, parse_topic(topic), Content(b'"hi"')), 1, 1, (), sent_at)  # type: ignore[arg-type]
        self.message = Located(each.draft.conversation_id, 1, each.body)

    async def locate(self, ids: Sequence[int]) -> dict[int, Located]:
        return {} if self.message is None else {1: self.message}

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        return dict.fromkeys(logs, 0)

    async def read_back(self, *_: object) -> list[object]:
        return []


class States:
    """The stores of watermarks and retained messages."""

    async def states(self, user: str, ids: Sequence[str], _: object = None) -> list[ConversationState]:
        return [ConversationState(each, 1, 0, 0, 0, False, False, False, *[0] * 7) for each in ids]

    async def watermarks(self, *_: object) -> list[object]:
        return []

    async def watermarks_of(self, users: Mapping[str, str]) -> dict[str, Watermark]:
        return {name: Watermark(user, 3, 4) for name, user in users.items()}

    async def retained_on(self, topics: Sequence[str]) -> dict[str, Retained]:
        return {}


class Broker:
    """The broker."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.entries: list[Any] = []

    async def append(self, drafts: Sequence[Any]) -> list[Any]:
        if any(draft.content.type != "system" for draft in drafts):
            raise WritingError
        self.entries += drafts
        return [None for _ in drafts]

    async def emit(self, users: Sequence[str], event: Mapping[str, Any], *, keep: bool = True) -> None:
        self.told += users

    async def devices(self, users: Sequence[str]) -> dict[str, list[str]]:
        return {user: ["phone"] for user in users}


async def save(_: object) -> None:
    """It is told of next."""


class FixedClock:
    """The clock."""

    def now_ms(self) -> int:
        return NOW

    growing_ms = now_ms


class World:
    """The topic rules and the operations over the same people."""

    def __init__(self, people: People | None = None) -> None:
        self.people, self.log, self.broker = people or People(), Logs(), Broker()
        some: Any = States()
        parts: tuple[Any, ...] = (self.log, some, save, some, self.people, self.broker)
        limits = MessageLimits(RECALL_MS, EDIT_MS, 100)
        quotas = Quotas(1000, 1000, 1000, 1000, lambda: NOW / 1000, Counter())
        self.operations: Operations = Services(*parts, FixedClock(), limits, 100, quotas, int, 1).operations
        self.rules = ContractRules(self.people, [], lambda: NOW)  # type: ignore[arg-type]

    async def publish(self, topic: str) -> str | None:
        """The code publishing is refused with."""
        refusal = await self.rules.may_publish(ALICE, parse_topic(topic))
        return refusal.code if refusal else None

    async def call(self, name: str, parameters: dict[str, Any], *, is_system: bool = False) -> str | None:
        """The code by which the table refuses a call of alice's."""
        try:
            await self.operations.call(Caller("alice", is_system), name, parameters)
        except WritingError:
            return None
        except RefusedError as refusal:
            return refusal.code if refusal.code in CODES or refusal.detail in UNKNOWN else None
        return None


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
