"""The topic table of docs/topics.md."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from msgspec.structs import replace

from broker.domain.directory import Account, Contact, Group, Membership, Profile
from broker.domain.topics import Topic, parse_topic
from broker.ports import AccountChanged, DirectoryChange, GroupChanged, Identity, MembershipChanged
from plugins.auth.rules import ContractRules


class FewPeople:
    """A directory of dicts, with the methods the rules ask; it counts how often."""

    def __init__(self) -> None:
        self.users = {"alice", "bob"}
        self.memberships_of: dict[str, dict[str, Membership]] = {}
        self.known: dict[tuple[str, str], Contact] = {}
        self.profile_of: dict[str, Profile] = {}
        self.group_of: dict[str, Group] = {}
        self.asked = 0
        self._listener: Callable[[DirectoryChange], None]

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        self._listener = callback

    async def account(self, user_id: str) -> Account | None:
        self.asked += 1
        return Account(user_id) if user_id in self.users else None

    async def memberships(self, user_id: str) -> list[Membership]:
        self.asked += 1
        return list(self.memberships_of.get(user_id, {}).values())

    async def group(self, group_id: str) -> Group | None:
        self.asked += 1
        return self.group_of.get(group_id) or Group(group_id, group_id, "owner", 0, 2)

    async def contacts_between(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Contact]:
        return {pair: self.known[pair] for pair in pairs if pair in self.known}

    async def contacts(self, user_id: str, after: str, limit: int) -> list[Contact]:
        peers = sorted(peer for user, peer in self.known if user == user_id and peer > after)
        return [self.known[user_id, peer] for peer in peers[:limit]]

    async def profiles(self, user_ids: Sequence[str]) -> dict[str, Profile]:
        return {user: self.profile_of.get(user, Profile(user)) for user in user_ids if user in self.users}

    def befriend(self, one: str, other: str, **values: bool) -> None:
        self.known[one, other] = Contact(one, other, "contact", **values)
        self.known[other, one] = Contact(other, one, "contact")

    def join(self, user: str, group: str, seq: int = 0, muted_until: int = 0) -> None:
        self.memberships_of.setdefault(user, {})[group] = Membership(group, user, "member", seq, muted_until)
        self._listener(MembershipChanged(group, user, True))

    def tell(self, change: DirectoryChange) -> None:
        self._listener(change)

    def leave(self, user: str, group: str) -> None:
        del self.memberships_of[user][group]
        self._listener(MembershipChanged(group, user, False))

    def remove(self, user: str) -> None:
        self.users.discard(user)
        self._listener(AccountChanged(user, None))


@pytest.fixture
def people() -> FewPeople:
    return FewPeople()


@pytest.fixture
def rules(people: FewPeople) -> ContractRules:
    return ContractRules(people, ["open/#", "one/topic"], lambda: 1000)  # type: ignore[arg-type]


ALICE, ADMIN, NOBODY = Identity("alice"), Identity("alice", "admin"), Identity("")

# topic, code for alice (a member of "team"), code for an anonymous client
PUBLISH = [
    ("users/bob/inbox", None, "anonymous"),
    ("users/alice/inbox", None, "anonymous"),
    ("users/nobody/inbox", "not_found", "anonymous"),
    ("users/bob/typing", None, "anonymous"),
    ("users/nobody/typing", "not_found", "anonymous"),
    ("groups/team", None, "anonymous"),
    ("groups/team/typing", None, "anonymous"),
    ("groups/quiet", "muted", "anonymous"),
    ("groups/other", "not_member", "anonymous"),
    ("groups/other/typing", "not_member", "anonymous"),
    ("users/alice/presence", None, "anonymous"),
    ("users/bob/presence", "not_authorized", "anonymous"),
    ("users/alice/rpc/x.y", None, "anonymous"),
    ("users/bob/rpc/x.y", "not_authorized", "anonymous"),
    ("users/alice/events", "not_authorized", "anonymous"),
    ("users/alice/replies", "not_authorized", "anonymous"),
    ("$SYS/broker/uptime", "not_authorized", "anonymous"),
    ("open/a/b", None, None),
    ("one/topic", None, None),
    ("one/topic/more", "unknown_topic", "unknown_topic"),
    ("users/alice", "unknown_topic", "unknown_topic"),
    ("groups/bad id", "unknown_topic", "unknown_topic"),
    ("users/alice/inbox/more", "unknown_topic", "unknown_topic"),
]


@pytest.mark.parametrize(("topic", "alice", "anonymous"), PUBLISH)
async def test_who_may_publish(
    people: FewPeople, rules: ContractRules, topic: str, alice: str | None, anonymous: str | None
) -> None:
    people.join("alice", "team")
    people.join("alice", "quiet", muted_until=1001)
    for identity, expected in ((ALICE, alice), (ADMIN, alice), (NOBODY, anonymous)):
        refusal = await rules.may_publish(identity, parse_topic(topic))
        assert (refusal.code if refusal else None) == expected


OWN = {f"users/alice/{leaf}" for leaf in ("inbox", "presence", "typing", "events", "replies")}
GROUPS = {"groups/team", "groups/club"}
TYPING = {f"{group}/typing" for group in GROUPS}

# filter, what it comes to for alice (a member of "team" and "club"; None: refused), and whether it
# covers open topics
GRANTS = [
    ("users/alice/inbox", {"users/alice/inbox"}, False),
    ("users/alice/#", OWN, False),
    ("users/alice/+", OWN, False),
    ("users/+/inbox", {"users/alice/inbox"}, False),
    ("users/#", OWN, False),
    ("+/+/inbox", {"users/alice/inbox"}, True),
    ("groups/+", GROUPS, False),
    ("groups/#", GROUPS | TYPING, False),
    ("groups/+/typing", TYPING, False),
    ("groups/team", {"groups/team"}, False),
    ("groups/team/#", {"groups/team", "groups/team/typing"}, False),
    ("users/+/presence", {"users/alice/presence"}, False),
    ("#", OWN | GROUPS | TYPING, True),
    ("+/#", OWN | GROUPS | TYPING, True),
    ("open/#", set(), True),
    ("open/x", set(), True),
    ("+/topic", set(), True),
    ("users/bob/inbox", None, False),
    ("users/bob/#", None, False),
    ("users/bob/presence", None, False),
    ("groups/other", None, False),
    ("groups/other/#", None, False),
    ("users/alice/rpc/#", None, False),
    ("users/+/rpc/x", None, False),
    ("$SYS/#", None, False),
    ("closed/#", None, False),
    ("users/alice/inbox/x", None, False),
]


@pytest.mark.parametrize(("topic_filter", "topics", "is_open"), GRANTS)
async def test_what_a_filter_comes_to(
    people: FewPeople, rules: ContractRules, topic_filter: str, topics: set[str] | None, is_open: bool
) -> None:
    people.join("alice", "team", 7)
    people.join("alice", "club")
    grant = await rules.grant(ALICE, topic_filter)
    if topics is None:
        assert grant is None
    else:
        assert grant is not None
        assert set(grant.topics) == topics
        assert (grant.open, grant.everything) == (is_open, False)
        assert grant.topics.get("groups/team", 7) == 7
    everything = await rules.grant(ADMIN, topic_filter)
    assert everything is not None
    assert everything.everything
    anonymous = await rules.grant(NOBODY, topic_filter)
    assert (anonymous is not None) == is_open


async def test_answers_are_remembered_until_a_change(people: FewPeople, rules: ContractRules) -> None:
    people.join("alice", "team")
    inbox, group = parse_topic("users/bob/inbox"), parse_topic("groups/team")
    for _ in range(3):
        assert await rules.may_publish(ALICE, inbox) is None
        assert await rules.may_publish(ALICE, group) is None
    assert people.asked == 3, "for the user, the memberships and the group"
    people.leave("alice", "team")
    people.remove("bob")
    assert await rules.may_publish(ALICE, group) is not None
    assert await rules.may_publish(ALICE, inbox) is not None
    assert people.asked == 5


async def test_an_answer_that_a_change_overtook_is_not_remembered(
    people: FewPeople, rules: ContractRules
) -> None:
    people.join("alice", "team")
    asked, answered = asyncio.Event(), asyncio.Event()
    slow = people.memberships

    async def memberships(user_id: str) -> list[Membership]:
        answer = await slow(user_id)
        asked.set()
        await answered.wait()
        return answer

    people.memberships = memberships  # type: ignore[method-assign]
    asking = asyncio.create_task(rules.may_publish(ALICE, parse_topic("groups/team")))
    await asked.wait()
    people.leave("alice", "team")
    answered.set()
    await asking
    assert await rules.may_publish(ALICE, parse_topic("groups/team")) is not None


async def test_what_contacts_are_to_each_other(people: FewPeople, rules: ContractRules) -> None:
    inbox, typing = parse_topic("users/bob/inbox"), parse_topic("users/bob/typing")
    people.profile_of["bob"] = Profile("bob", who_may_message="contacts")
    assert await _code(rules, inbox) == await _code(rules, typing) == "not_contact"
    assert await rules.grant(ALICE, "users/bob/presence") is None
    people.befriend("alice", "bob")
    assert await _code(rules, inbox) is await _code(rules, typing) is None
    for topic_filter in ("users/bob/presence", "users/+/presence", "#"):
        grant = await rules.grant(ALICE, topic_filter)
        assert grant is not None
        assert "users/bob/presence" in grant.topics
    people.profile_of["bob"] = Profile("bob", who_sees_presence="nobody")
    assert await rules.grant(ALICE, "users/bob/presence") is None
    people.profile_of["bob"] = Profile("bob", who_sees_presence="everyone")
    people.known.clear()
    assert await rules.grant(ALICE, "users/bob/presence") is not None
    grant = await rules.grant(ALICE, "users/+/presence")
    assert grant is not None
    assert set(grant.topics) == {"users/alice/presence"}, "wildcards are narrowed to contacts"


@pytest.mark.parametrize(("one", "other"), [("alice", "bob"), ("bob", "alice")])
async def test_blocked(people: FewPeople, rules: ContractRules, one: str, other: str) -> None:
    people.befriend(one, other, blocked=True)
    people.profile_of["bob"] = Profile("bob", who_sees_presence="everyone")
    assert await _code(rules, parse_topic("users/bob/inbox")) == "blocked"
    assert await _code(rules, parse_topic("users/bob/typing")) == "blocked"
    assert await rules.grant(ALICE, "users/bob/presence") is None


async def test_settings_of_groups(people: FewPeople, rules: ContractRules) -> None:
    people.join("alice", "team")
    group = Group("team", "Team", "owner", 0, 2)
    for changed, code in (
        (replace(group, muted_until=1001), "muted"),
        (replace(group, who_may_post="admins"), "not_authorized"),
        (replace(group, dismissed_at=1), "dismissed"),
        (replace(group, muted_until=1000), None),
    ):
        people.group_of["team"] = changed
        people.tell(GroupChanged(changed))
        assert await _code(rules, parse_topic("groups/team")) == code


async def _code(rules: ContractRules, topic: Topic) -> str | None:
    refusal = await rules.may_publish(ALICE, topic)
    return refusal.code if refusal else None
