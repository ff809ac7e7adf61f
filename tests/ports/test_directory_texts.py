"""The Directory port: texts are kept and compared as they are, in each database."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from broker.ports import Contact, GroupWrite, JoinRequest, Profile
from plugins.persistence.sql_directory import SqlDirectory
from tests.ports.directories import Place, add, contact, member, new_group, opened

EMOJI = "👩‍👩‍👧‍👦"
"""Seven characters for people, and many bytes."""

NAMES = [
    "alice",
    "alice ",
    "alice  ",
    " alice",
    "alicé",
    "alice\u0301",
    "Zoe",
    "_",
    "-",
    "\uffff",
    "😀",
    "ß",
]
"""Each is another id, whatever a language says. (The platform gives simpler ones.)"""


@pytest.fixture
async def directory(place: Place) -> AsyncIterator[SqlDirectory]:
    async with opened(place) as directory:
        yield directory


async def test_ids_are_compared_byte_by_byte_and_ordered_by_code_points(directory: SqlDirectory) -> None:
    await add(directory, *NAMES)
    assert [account.user_id for account in await directory.accounts("", 100)] == sorted(NAMES)
    assert [account.user_id for account in await directory.accounts("alice", 2)] == ["alice ", "alice  "]
    for name in NAMES:
        found = await directory.account(name)
        assert found is not None
        assert found.user_id == name
    assert await directory.account("zoe") is None
    assert await directory.account("ALICE") is None
    others = sorted(name for name in NAMES if name != "alice")
    await directory.write_contacts([contact("alice", name) for name in others], [])
    assert [each.peer_id for each in await directory.contacts("alice", "", 100)] == others
    assert await directory.contacts_between([("alice", "alice ")]) == {
        ("alice", "alice "): contact("alice", "alice ")
    }
    await directory.remove_account("alice ")
    assert await directory.account("alice") is not None
    assert await directory.contacts_between([("alice", "alice ")]) == {}


async def test_groups_whose_ids_differ_in_a_space(directory: SqlDirectory) -> None:
    await add(directory, "alice", "bob", "bob ")
    for group, user in (("team", "bob"), ("team ", "bob ")):
        await directory.write_group(new_group("alice", user, group=group), [])
        assert [each.user_id for each in await directory.members(group, "", 10)] == ["alice", user]
    assert await directory.membership("team", "bob ") is None
    assert [each.group_id for each in await directory.memberships("alice")] == ["team", "team "]
    await directory.revoke_token("alice", "t-1", 2**40)
    assert not await directory.is_revoked("t-1 ")


async def test_the_longest_texts_fit(directory: SqlDirectory) -> None:
    longest = "😀" * 255
    user, peer = "u" * 64, "p" * 64
    await add(directory, user, peer)
    profile = Profile(user, longest, "😀" * 2048)
    await directory.write_profile(profile)
    assert await directory.profiles([user]) == {user: profile}
    said = Contact(user, peer, "sent", False, longest, "😀" * 1024, 2**53, 1)
    await directory.write_contacts([said], [])
    assert await directory.contacts(user, "", 1) == [said]
    made = new_group(user, group="g" * 64, announcement="😀" * 4096, avatar="😀" * 2048)
    ask = JoinRequest("g" * 64, peer, "😀" * 1024, 2**53)
    made = GroupWrite(replace(made.group, name=longest), put=[member(user, "owner", "g" * 64)], ask=[ask])
    await directory.write_group(made, [])
    assert await directory.group("g" * 64) == replace(made.group, members=1)
    assert await directory.join_requests("g" * 64, "", 1) == [ask]


@pytest.mark.parametrize(
    "name", [EMOJI, 'it\'s "quoted" \\ %s {} ; --', "a\tb\r\nc\x1a\x7f", "שלום", " padded "]
)
async def test_texts_stay_as_they_are(directory: SqlDirectory, name: str) -> None:
    await add(directory, "alice")
    await directory.write_profile(Profile("alice", name))
    assert (await directory.profiles(["alice"]))["alice"].name == name
