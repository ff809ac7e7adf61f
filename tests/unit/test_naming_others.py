"""Every operation and topic that names a user or a group has an answer to: may this user do that to them?

The tables below must name each parameter by which an operation names somebody, so that a new one cannot be
added without an answer. What the answers are is in tests/unit/test_permissions.py; that operations between
two users and in groups give them is tested in tests/unit/test_permissions_asked.py.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec
import pytest
from msgspec import inspect as types
from msgspec.structs import replace

from bridge.core.operations import Caller, Operation
from bridge.services import offered_operations
from broker.domain.directory import Contact, Membership
from broker.domain.errors import RefusedError
from broker.domain.message import Content
from broker.domain.permissions import GroupOperation, Rank, Relation, UserOperation
from broker.domain.topics import Kind, parse_topic
from broker.publish.references import References
from tests.unit.permission_world import People, States, World, WritingError
from tests.unit.test_permissions import GROUPS, PROFILES, TEAM, user_answer
from tests.unit.test_permissions_asked import HERE, OF_GROUPS, OF_USERS, OTHERS, with_peer

# --- every parameter -----------------------------------------------------------------

PUBLIC = "everybody may know it"
OWN = "only the caller's own record changes, and nobody else is told"
MODERATION = "the rank in the group decides, also over users who have blocked the caller"
ASKED_FOR = "the user has asked for it"
SERVICES = "services only may ask, and they may name everybody"
HERE_ONLY = "refused unless it is in the same conversation"
NEW = "there is no such group yet"
MISSING = "what the caller may not ask about is missing, as what does not exist"

U, G = UserOperation, GroupOperation

ANSWERS: dict[str, dict[str, Enum | str]] = {
    "messages.sync": {"cursors": G.READ},
    "messages.history": {
        "conversation_id": G.READ,
        "before_id": HERE_ONLY,
        "after_id": HERE_ONLY,
        "around_id": HERE_ONLY,
    },
    "messages.get": {"ids[]": MISSING},
    "messages.send": {"user_id": U.MESSAGE, "group_id": G.POST, "mentions": U.MENTION, "reply_to": HERE_ONLY},
    "messages.send_batch": {
        "messages[].user_id": U.MESSAGE,
        "messages[].group_id": G.POST,
        "messages[].mentions": U.MENTION,
        "messages[].reply_to": HERE_ONLY,
    },
    "messages.read": {"conversation_id": G.READ},
    "messages.delivered": {"conversation_id": G.READ},
    "messages.readers": {"id": G.READ},
    "messages.read_counts": {"conversation_id": G.READ, "ids[]": MISSING},
    "messages.edit": {"id": U.EDIT},
    "messages.recall": {"id": U.RECALL},
    "conversations.list": {},
    "conversations.set": {"conversation_id": G.READ},
    "contacts.list": {},
    "contacts.request": {"user_id": U.REQUEST},
    "contacts.accept": {"user_id": U.ANSWER},
    "contacts.reject": {"user_id": U.ANSWER},
    "contacts.remove": {"user_id": U.REMOVE},
    "contacts.remark": {"user_id": U.REMARK},
    "contacts.block": {"user_id": U.BLOCK},
    "contacts.unblock": {"user_id": U.BLOCK},
    "groups.create": {"group_id": NEW, "members[]": U.ADD},
    "groups.get": {"group_id": G.SEE},
    "groups.list": {},
    "groups.update": {"group_id": G.UPDATE},
    "groups.mute": {"group_id": G.MUTE_ALL, "user_id": MODERATION},
    "groups.set_role": {"group_id": G.SET_ROLE, "user_id": U.APPOINT},
    "groups.transfer": {"group_id": G.TRANSFER, "user_id": U.APPOINT},
    "groups.dismiss": {"group_id": G.DISMISS},
    "groups.members": {"group_id": G.READ},
    "groups.add": {"group_id": G.INVITE, "user_ids[]": U.ADD},
    "groups.remove": {"group_id": G.REMOVE, "user_ids[]": MODERATION},
    "groups.leave": {"group_id": G.LEAVE},
    "groups.ban": {"group_id": G.BAN, "user_id": MODERATION},
    "groups.unban": {"group_id": G.UNBAN, "user_id": MODERATION},
    "groups.bans": {"group_id": G.BAN},
    "groups.join": {"group_id": G.JOIN},
    "groups.requests": {"group_id": G.ANSWER},
    "groups.accept": {"group_id": G.ANSWER, "user_id": ASKED_FOR},
    "groups.reject": {"group_id": G.ANSWER, "user_id": ASKED_FOR},
    "presence.get": {"user_ids[]": U.SEE_PRESENCE},
    "users.get": {"user_ids[]": PUBLIC},
    "users.update": {},
    "session.renew": {},
    "push.users": {"user_ids[]": SERVICES},
}

NAMES_NOBODY = {
    *("after", "announcement", "avatar", "client_msg_id", "content", "cursor", "data", "history_visible"),
    *(
        "generation",
        "include_hidden",
        "join",
        "limit",
        "name",
        "note",
        "payload",
        "read_receipts",
        "remark",
        "role",
        "seq",
        "since",
    ),
    *("state", "token", "traceparent", "type", "until", "before_seq", "after_seq", "around_seq", "pinned"),
    "muted",
    *("hidden", "marked_unread", "who_may_add_me", "who_may_invite", "who_may_message", "who_may_post"),
    "who_sees_presence",
}
"""Parameters that name neither a user, a group, a conversation nor a message."""

TOPICS: dict[Kind, Enum | str] = {
    Kind.INBOX: U.MESSAGE,
    Kind.TYPING: U.TYPE,
    Kind.GROUP: G.POST,
    Kind.GROUP_TYPING: G.POST,
    Kind.PRESENCE: U.SEE_PRESENCE,
    Kind.RPC: OWN,
    Kind.EVENTS: OWN,
    Kind.REPLIES: OWN,
    Kind.SYS: "for administrators",
    Kind.OTHER: "open topics belong to nobody",
}


def fields(struct: type, path: str = "") -> Iterator[str]:
    """The parameters of an operation; those in lists and structs with their path."""
    kind = types.type_info(struct)
    assert isinstance(kind, types.StructType)
    for field in kind.fields:
        yield from _paths(field.type, path + field.encode_name)


def _paths(kind: types.Type, path: str) -> Iterator[str]:
    match kind:
        case types.Metadata(inner):
            yield from _paths(inner, path)
        case types.UnionType(options) if not path.endswith("mentions"):
            for option in options:
                if not isinstance(option, types.NoneType):
                    yield from _paths(option, path)
        case types.ListType(item):
            yield from _paths(item, f"{path}[]")
        case types.StructType(cls):
            yield from fields(cls, f"{path}.")
        case _:
            yield path


def naming(operation: Operation) -> set[str]:
    """The parameters by which an operation names somebody."""
    return {
        path
        for path in fields(operation.parameters)
        if path.rpartition(".")[2].removesuffix("[]") not in NAMES_NOBODY
    }


@pytest.mark.parametrize("operation", list(offered_operations()), ids=lambda it: it.name)
def test_every_parameter_that_names_somebody_has_an_answer(operation: Operation) -> None:
    """A new operation, or a new parameter, needs a row in `ANSWERS`, or a word in `NAMES_NOBODY`."""
    assert naming(operation) == set(ANSWERS[operation.name])


def test_ids_name_somebody() -> None:
    """No parameter that is an id by its type is taken for one that names nobody."""
    for operation in offered_operations():
        kind = types.type_info(operation.parameters)
        assert isinstance(kind, types.StructType)
        for field in kind.fields:
            is_id = "[A-Za-z0-9_.-]{1,64}" in repr(field.type)
            assert not is_id or field.encode_name not in NAMES_NOBODY, f"{operation.name} {field.encode_name}"


def test_answers_are_tested() -> None:
    """An operation whose answer is in the table of permissions is called in each of its cells."""
    called = {(name, asked) for name, _, asked in [*OF_USERS, *OF_GROUPS, *OTHERS]}
    published = {U.MESSAGE, G.POST}  # as the topics
    shown = {("presence.get", U.SEE_PRESENCE)}  # test_what_others_are_told
    for name, answers in ANSWERS.items():
        for answer in answers.values():
            if isinstance(answer, Enum) and answer not in published:
                where = "messages.send" if name == "messages.send_batch" else name
                where = "messages.history" if name == "conversations.set" else where  # both ask for the room
                assert (where, answer) in called | shown, name


def test_every_kind_of_topic_has_an_answer() -> None:
    assert set(TOPICS) == set(Kind)


# --- in groups -----------------------------------------------------------------------


def world_of_owner(relation: Relation, people: People | None = None, **profile: Any) -> World:
    """Alice owns the group `team`."""
    world = World(people)
    world.people.stand(relation, replace(PROFILES["plain"], **profile))
    world.people.sit(Rank.OWNER, replace(TEAM, owner="alice"), 0)
    world.people.memberships_of["alice"]["team"] = Membership("team", "alice", "owner", 0)
    return world


@pytest.mark.parametrize(
    ("name", "parameters", "operation"), [row for row in OTHERS if row[2] in (U.ADD, U.APPOINT)]
)
@pytest.mark.parametrize("relation", Relation, ids=lambda it: it.name)
async def test_the_owner_of_a_group_asks_about_others(
    relation: Relation, name: str, parameters: dict[str, Any], operation: UserOperation
) -> None:
    for case, profile in PROFILES.items():
        if profile is None or relation is Relation.SELF:
            continue
        world = world_of_owner(relation, **msgspec.structs.asdict(profile))
        if operation is U.ADD:
            del world.people.memberships_of["bob"]
        is_system = relation is Relation.SYSTEM
        code = await world.call(name, with_peer(parameters, "bob"), is_system=is_system)
        assert code == user_answer(operation, relation, case), case


async def test_to_take_a_rank_away_nobody_is_asked() -> None:
    world = world_of_owner(Relation.BLOCKED)
    world.people.memberships_of["bob"] = {"team": Membership("team", "bob", "admin", 0)}
    assert await world.call("groups.set_role", HERE | {"user_id": "bob", "role": "member"}) is None


async def test_who_has_left_is_not_added() -> None:
    for is_system in (False, True):
        world = world_of_owner(Relation.CONTACT)
        del world.people.memberships_of["bob"]
        world.people.left.add("bob")
        with pytest.raises(WritingError if is_system else RefusedError) as raised:
            await world.operations.call(
                Caller("alice", is_system), "groups.add", HERE | {"user_ids": ["bob"]}
            )
        assert is_system or getattr(raised.value, "code", "") == "has_left"


async def test_who_has_left_is_not_in_a_group_with_the_same_id() -> None:
    world = world_of_owner(Relation.CONTACT)
    world.people.left.add("bob")
    world.people.group_of["team"] = replace(TEAM, owner="alice", dismissed_at=1)
    with pytest.raises(RefusedError) as raised:
        await world.operations.call(Caller("alice"), "groups.create", HERE | {"members": ["bob"]})
    assert raised.value.code == "has_left"


@pytest.mark.parametrize("relation", [Relation.CONTACT, Relation.STRANGER, Relation.BLOCKED])
async def test_mentions(relation: Relation) -> None:
    world = world_of_owner(relation)
    references = References(world.log, States(), world.people)  # type: ignore[arg-type]
    content = Content(b'"hi"', mentions=["bob"])  # type: ignore[arg-type]
    refusal = await references.check("alice", parse_topic("groups/team"), content)
    assert (refusal.code if refusal else None) == user_answer(U.MENTION, relation, "plain")


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000])
async def test_a_reply_to_a_number_that_is_no_id(number: str) -> None:
    world = world_of_owner(Relation.CONTACT)
    references = References(world.log, States(), world.people)  # type: ignore[arg-type]
    content = Content(b'"hi"', reply_to=number)  # type: ignore[arg-type]
    refusal = await references.check("alice", parse_topic("groups/team"), content)
    assert refusal is not None
    assert refusal.code == "not_found"
    assert len(refusal.detail) < 200


# --- what reaches others -------------------------------------------------------------


class Storing(People):
    """Groups and contacts can be changed. The changes are forgotten."""

    async def write_group(self, *_: object) -> None:
        pass

    async def write_contacts(self, *_: object) -> None:
        pass

    async def drop_notices(self, _: object) -> None:
        pass


@pytest.mark.parametrize("relation", [Relation.CONTACT, Relation.STRANGER, Relation.BLOCKED])
async def test_admins_who_are_told_of_join_requests(relation: Relation) -> None:
    world = World(Storing())
    world.people.stand(relation, PROFILES["plain"])
    world.people.sit(Rank.OUTSIDER, *GROUPS["plain"])
    world.people.memberships_of["bob"] = {"team": Membership("team", "bob", "owner", 0)}
    world.people.requests.clear()
    await world.operations.call(Caller("alice"), "groups.join", HERE)
    assert (world.broker.told == ["bob"]) == (user_answer(U.ASK_TO_JOIN, relation, "plain") is None)
    world.broker.told.clear()
    world.people.requests = {"alice": "", "bob": ""}
    await world.operations.call(Caller("alice"), "groups.join", HERE | {"note": "please"})
    assert not world.broker.told, "asking again tells nobody anything new"


@pytest.mark.parametrize("is_member", [False, True])
async def test_a_ban_is_told_to_those_whom_it_changes(is_member: bool) -> None:
    """The id of a group is a text, too: it does not reach somebody who has nothing to do with the group."""
    world = world_of_owner(Relation.STRANGER, Storing())
    world.people.requests.clear()
    if not is_member:
        del world.people.memberships_of["bob"]
    await world.operations.call(Caller("alice"), "groups.ban", HERE | {"user_id": "bob"})
    assert world.broker.told == (["bob"] if is_member else [])


async def test_texts_are_messages() -> None:
    """The note of a request reaches only those who accept messages from its author."""
    for relation in (Relation.STRANGER, Relation.BLOCKED):
        for case, profile in PROFILES.items():
            if profile is None:
                continue
            world = world_of_owner(relation, Storing())
            world.people.profile_of["alice"] = replace(profile, user_id="alice")
            world.people.known["alice", "bob"] = Contact("alice", "bob", "received", note="let me in")
            heard = user_answer(U.MESSAGE, relation, case) is None
            (listed,) = (await world.operations.call(Caller("alice"), "groups.requests", HERE)).requests
            assert bool(listed.note) == heard, case
            (contact,) = (
                await world.operations.call(Caller("alice"), "contacts.list", {"state": "received"})
            ).contacts
            assert bool(contact.note) == heard, case
            if relation is not Relation.BLOCKED:  # else there is no request
                world.broker.entries.clear()
                await world.operations.call(
                    Caller("bob"), "contacts.request", {"user_id": "alice", "note": "x"}
                )
                assert [b"note" in bytes(entry.content.content) for entry in world.broker.entries] == [heard]
