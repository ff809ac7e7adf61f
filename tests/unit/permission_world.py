"""The services and the topic rules over a directory by hand, in which alice acts on bob and a group."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from bridge.core.access import MessageLimits
from bridge.core.operations import Caller, Operations
from bridge.core.quotas import Quotas
from bridge.services import Services
from broker.domain.directory import Account, Ban, Contact, Group, JoinRequest, Membership, Profile
from broker.domain.errors import RefusedError
from broker.domain.message import Content, draft, stamp
from broker.domain.permissions import Rank, Relation
from broker.domain.topics import parse_topic
from broker.ports import ConversationState, Identity, Located, Retained, Watermark
from plugins.auth.rules import ContractRules
from tests.unit.test_permissions import (
    EDIT_MS,
    NOW,
    RECALL_MS,
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
