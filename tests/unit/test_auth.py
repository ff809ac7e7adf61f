"""Passwords, tokens with rotating keys, and the contract's topic table."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from broker.domain.topics import parse_topic
from broker.ports import (
    Account,
    AccountChanged,
    DirectoryChange,
    Identity,
    Membership,
    MembershipChanged,
)
from plugins.auth.passwords import Passwords
from plugins.auth.rules import ContractRules
from plugins.auth.tokens import TokenKeyError, Tokens, looks_like_token

NOW = float(int(time.time()))


async def test_passwords() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("right")
    assert hashed.startswith("$argon2id$")
    for _ in range(2):  # the second time from memory
        assert await passwords.verify(b"right", hashed)
        assert not await passwords.verify(b"wrong", hashed)
    assert not await passwords.verify(b"right", None)
    assert not await passwords.verify(b"right", "no hash at all")
    changed = await passwords.hash("new")
    assert not await passwords.verify(b"right", changed)
    passwords.close()


async def test_hashing_leaves_the_event_loop_free() -> None:
    passwords = Passwords()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await passwords.hash("x")
    counting.cancel()
    assert turns > 10
    passwords.close()


def write_keys(file: Path, active: str, *names: str) -> None:
    file.write_text(json.dumps({"active": active, "keys": {name: name * 40 for name in names}}))


def test_tokens(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "keys.json")
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
    token = tokens.issue("alice", 3600, NOW)
    assert looks_like_token(token.encode())
    read = tokens.verify(token)
    assert read is not None
    assert (read.user, read.expires_at) == ("alice", NOW + 3600)
    assert tokens.verify(token[:-2]) is None
    assert tokens.verify("") is None
    assert tokens.verify(tokens.issue("alice", 60, 1_000_000.0)) is None  # ended long ago
    again = Tokens(tmp_path / "keys.json").verify(token)
    assert again == read


def test_key_rotation(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    write_keys(file, "a", "a")
    tokens = Tokens(file)
    old = tokens.issue("alice", 3600, NOW)
    write_keys(file, "b", "a", "b")
    new = tokens.issue("alice", 3600, NOW)
    assert jwt.get_unverified_header(new)["kid"] == "b"
    assert tokens.verify(old) is not None
    assert tokens.verify(new) is not None
    write_keys(file, "b", "b")
    assert tokens.verify(old) is None
    assert tokens.verify(new) is not None


@pytest.mark.parametrize(
    "token",
    [
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, "a" * 40, "HS256"),  # no kid
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, "a" * 40, "HS256", headers={"kid": "z"}),
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, "b" * 40, "HS256", headers={"kid": "a"}),
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, "a" * 40, "HS512", headers={"kid": "a"}),
        jwt.encode({"sub": "alice", "exp": NOW + 3600}, None, "none", headers={"kid": "a"}),
        jwt.encode({"exp": NOW + 3600}, "a" * 40, "HS256", headers={"kid": "a"}),
        jwt.encode({"sub": "alice"}, "a" * 40, "HS256", headers={"kid": "a"}),  # without end
        "eyJ.eyJ.x",
    ],
)
def test_tokens_that_are_none(tmp_path: Path, token: str) -> None:
    write_keys(tmp_path / "keys.json", "a", "a")
    assert Tokens(tmp_path / "keys.json").verify(token) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "keys.json"),
        ('{"active": "a", "keys": {}}', "active key 'a'"),
        ('{"active": "a", "keys": {"a": "short"}}', "fewer than 32"),
    ],
)
def test_bad_key_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(TokenKeyError, match=message):
        Tokens(tmp_path / "keys.json")


class FewPeople:
    """A directory of dicts, with the methods the rules ask; it counts how often."""

    def __init__(self) -> None:
        self.users = {"alice", "bob"}
        self.groups: dict[str, dict[str, Membership]] = {}
        self.asked = 0
        self._listener: Callable[[DirectoryChange], None]

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        self._listener = callback

    async def account(self, user_id: str) -> Account | None:
        self.asked += 1
        return Account(user_id) if user_id in self.users else None

    async def memberships(self, user_id: str) -> list[Membership]:
        self.asked += 1
        return list(self.groups.get(user_id, {}).values())

    def join(self, user: str, group: str, seq: int = 0, muted_until: int = 0) -> None:
        self.groups.setdefault(user, {})[group] = Membership(group, user, "member", seq, muted_until)
        self._listener(MembershipChanged(group, user, True))

    def leave(self, user: str, group: str) -> None:
        del self.groups[user][group]
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
    assert people.asked == 2
    people.leave("alice", "team")
    people.remove("bob")
    assert await rules.may_publish(ALICE, group) is not None
    assert await rules.may_publish(ALICE, inbox) is not None
    assert people.asked == 4


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
