"""The Directory port: groups, their members, bans and join requests, with real storage."""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import msgspec
import pytest

from broker.ports import (
    Ban,
    DirectoryChange,
    Group,
    GroupChanged,
    GroupWrite,
    JoinRequest,
    Membership,
    MembershipChanged,
)
from plugins.persistence.sql_directory import SqlDirectory
from tests.ports.directories import NOW, Place, add, add_many, member, new_group, notice, opened, refused

USERS = ("alice", "bob", "carol", "dave")


@pytest.fixture
async def directory(place: Place) -> AsyncIterator[SqlDirectory]:
    """With four users."""
    async with opened(place) as directory:
        await add(directory, *USERS)
        yield directory


@pytest.fixture
def changes(directory: SqlDirectory) -> list[DirectoryChange]:
    told: list[DirectoryChange] = []
    directory.on_change(told.append)
    return told


async def group_of(directory: SqlDirectory, group_id: str = "team") -> Group:
    group = await directory.group(group_id)
    assert group is not None
    return group


async def then(directory: SqlDirectory, group_id: str = "team", **fields: Any) -> Group:
    """The group as it is to be after the next change."""
    group = await group_of(directory, group_id)
    return msgspec.structs.replace(group, version=group.version + 1, **fields)


async def users_in(directory: SqlDirectory, group_id: str = "team") -> list[str]:
    return [member.user_id for member in await directory.members(group_id, "", 100)]


async def test_a_group_keeps_all_that_is_said_of_it(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    assert await directory.group("team") is None
    made = Group("team", "Team", "alice", NOW, 99, "https://host/t.png", "Hej då", NOW + 1, "admins")
    made = msgspec.structs.replace(made, who_may_post="admins", join="open", history_visible=True)
    owner = Membership("team", "alice", "owner", 5, NOW + 2)
    await directory.write_group(GroupWrite(made, put=[owner, member("bob")]), [])
    counted = msgspec.structs.replace(made, members=2)
    assert await directory.group("team") == counted
    assert await directory.membership("team", "alice") == owner
    assert changes == [
        GroupChanged(counted),
        MembershipChanged("team", "alice", True),
        MembershipChanged("team", "bob", True),
    ]


async def test_members(directory: SqlDirectory, changes: list[DirectoryChange]) -> None:
    await directory.write_group(new_group("alice", "bob", "carol"), [])
    del changes[:]
    admin = Membership("team", "bob", "admin", 7, NOW)
    group = await then(directory, name="Renamed")
    await directory.write_group(GroupWrite(group, put=[admin, member("dave")], drop=["carol", "alice"]), [])
    assert changes == [
        GroupChanged(msgspec.structs.replace(group, members=2)),
        MembershipChanged("team", "bob", True),
        MembershipChanged("team", "dave", True),
        MembershipChanged("team", "carol", False),
        MembershipChanged("team", "alice", False),
    ]
    assert await directory.members("team", "", 10) == [admin, member("dave")]
    assert await directory.members_by_id("team", [*USERS, "nobody"]) == {"bob": admin, "dave": member("dave")}
    assert await directory.membership("team", "carol") is None
    assert await directory.membership("choir", "bob") is None
    assert await directory.group("team") == msgspec.structs.replace(group, members=2)


async def test_bans_and_join_requests(directory: SqlDirectory) -> None:
    await directory.write_group(new_group("alice"), [])
    bans = [Ban("team", "bob", NOW), Ban("team", "carol")]
    asks = [JoinRequest("team", "carol", "please", NOW), JoinRequest("team", "dave", "", NOW + 1)]
    await directory.write_group(GroupWrite(await then(directory), ban=bans, ask=asks), [])
    assert await directory.bans("team", "", 10) == bans
    assert await directory.bans("team", "bob", 10) == bans[1:]
    assert await directory.bans("team", "", 1) == bans[:1]
    assert await directory.ban("team", "bob") == bans[0]
    assert await directory.ban("team", "dave") is None
    assert await directory.ban("choir", "bob") is None
    assert await directory.bans_by_id("team", ["bob", "dave"]) == {"bob": bans[0]}
    assert await directory.join_requests("team", "", 10) == asks
    assert await directory.join_requests("team", "carol", 10) == asks[1:]
    assert await directory.join_requests("team", "", 1) == asks[:1]
    again = GroupWrite(
        await then(directory),
        ban=[Ban("team", "bob", NOW + 5)],
        unban=["carol", "nobody"],
        ask=[JoinRequest("team", "dave", "once more", NOW + 2)],
        answered=["carol", "nobody"],
    )
    await directory.write_group(again, [])
    assert await directory.bans("team", "", 10) == list(again.ban)
    assert await directory.join_requests("team", "", 10) == list(again.ask)


async def test_a_removed_users_bans_and_requests_go_with_them(directory: SqlDirectory) -> None:
    await directory.write_group(new_group("alice"), [])
    ban, ask = Ban("team", "bob"), JoinRequest("team", "bob", "", NOW)
    await directory.write_group(GroupWrite(await then(directory), ban=[ban], ask=[ask]), [])
    await directory.remove_account("bob")
    assert await directory.bans("team", "", 10) == []
    assert await directory.join_requests("team", "", 10) == []


async def test_a_mute_is_kept_until_they_are_members_again(directory: SqlDirectory) -> None:
    muted = [member("bob", muted_until=7), member("carol", muted_until=8)]
    write = new_group("alice", "dave")
    await directory.write_group(msgspec.structs.replace(write, put=[*write.put, *muted]), [])
    gone = ["bob", "carol", "dave"]
    await directory.write_group(GroupWrite(await then(directory), drop=gone, left=["bob"]), [])
    assert await directory.kept_mutes("team", [*USERS, "nobody"]) == {"bob": 7, "carol": 8}
    assert await directory.kept_mutes("choir", USERS) == {}
    assert await directory.who_left("team", USERS) == {"bob"}
    await directory.write_group(GroupWrite(await then(directory), put=[member("bob"), member("dave")]), [])
    assert await directory.kept_mutes("team", USERS) == {"carol": 8}
    # Who is put in the same write is a member.
    both = GroupWrite(await then(directory), drop=["bob"], put=[member("bob", muted_until=9)])
    await directory.write_group(both, [])
    assert await directory.kept_mutes("team", USERS) == {"carol": 8}
    await directory.write_group(GroupWrite(await then(directory), drop=["bob"], left=["bob"]), [])
    assert await directory.kept_mutes("team", USERS) == {"bob": 9, "carol": 8}
    # Another group with the same id takes over who has left, but no mute.
    await directory.write_group(GroupWrite(await then(directory, dismissed_at=NOW)), [])
    fresh = GroupWrite(await then(directory, dismissed_at=0), fresh=True, put=[member("alice", "owner")])
    await directory.write_group(fresh, [])
    assert await directory.kept_mutes("team", USERS) == {}
    assert await directory.who_left("team", USERS) == {"bob"}


async def test_the_mute_of_an_account_goes_with_it(directory: SqlDirectory) -> None:
    write = new_group("alice")
    put = [*write.put, member("bob", muted_until=7)]
    await directory.write_group(msgspec.structs.replace(write, put=put), [])
    await directory.write_group(GroupWrite(await then(directory), drop=["bob"]), [])
    assert await directory.kept_mutes("team", USERS) == {"bob": 7}
    await directory.remove_account("bob")
    await directory.add_account("bob", None, "user", reuse_id=True)
    assert await directory.kept_mutes("team", USERS) == {}


async def test_who_left_is_known_until_they_are_members_again(directory: SqlDirectory) -> None:
    await directory.write_group(new_group("alice", "bob", "carol", "dave"), [])
    await directory.write_group(GroupWrite(await then(directory), drop=["bob", "carol"], left=["bob"]), [])
    assert await directory.who_left("team", [*USERS, "nobody"]) == {"bob"}
    assert await directory.who_left("choir", USERS) == set()
    await directory.write_group(GroupWrite(await then(directory), drop=["dave"], left=["bob", "dave"]), [])
    assert await directory.who_left("team", USERS) == {"bob", "dave"}
    await directory.write_group(GroupWrite(await then(directory), put=[member("dave")]), [])
    assert await directory.who_left("team", USERS) == {"bob"}
    # Not even another group with the same id makes it forgotten.
    await directory.write_group(GroupWrite(await then(directory, dismissed_at=NOW)), [])
    fresh = GroupWrite(await then(directory, dismissed_at=0), fresh=True, put=[member("alice", "owner")])
    await directory.write_group(fresh, [])
    assert await directory.who_left("team", USERS) == {"bob"}
    await directory.remove_account("bob")
    await directory.add_account("bob", None, "user", reuse_id=True)
    assert await directory.who_left("team", USERS) == set()


# --- refusals ------------------------------------------------------------------------------


def _all_at_once(group: Group, **fields: Any) -> GroupWrite:
    everything = GroupWrite(
        group,
        fresh=True,
        put=[member("dave")],
        drop=["bob"],
        ban=[Ban("team", "bob")],
        ask=[JoinRequest("team", "dave", "", NOW)],
    )
    return msgspec.structs.replace(everything, **fields)


@pytest.mark.parametrize(
    ("code", "version", "fields"),
    [
        ("exists", 1, {}),
        ("conflict", 2, {}),
        ("conflict", 4, {}),
        ("conflict", 0, {}),
        ("not_found", 3, {"put": [member("dave"), member("zoe"), member("yan")]}),
        ("not_found", 3, {"ban": [Ban("team", "zoe")]}),
        ("not_found", 3, {"ask": [JoinRequest("team", "zoe", "", NOW)]}),
    ],
)
async def test_a_refused_write_changes_and_tells_nothing(
    directory: SqlDirectory, changes: list[DirectoryChange], code: str, version: int, fields: dict[str, Any]
) -> None:
    await directory.write_group(new_group("alice", "bob"), [])
    await directory.write_group(GroupWrite(await then(directory), ban=[Ban("team", "carol")]), [])
    before = await group_of(directory)
    del changes[:]
    group = msgspec.structs.replace(before, name="Other", version=version)
    detail = await refused(code, directory.write_group(_all_at_once(group, **fields), [notice("n-1")]))
    assert code != "not_found" or detail == "no user zoe"
    assert await group_of(directory) == before
    assert await users_in(directory) == ["alice", "bob"]
    assert await directory.bans("team", "", 10) == [Ban("team", "carol")]
    assert await directory.join_requests("team", "", 10) == []
    assert await directory.notices(10) == []
    assert changes == []


async def test_a_group_is_made_with_version_1_and_for_an_owner_there_is(directory: SqlDirectory) -> None:
    await refused("conflict", directory.write_group(new_group("alice", version=2), []))
    write = GroupWrite(new_group("zoe").group)
    assert await refused("not_found", directory.write_group(write, [])) == "no user zoe"
    assert await directory.groups("", 10) == []


async def test_of_two_changes_of_one_group_one_is_refused(directory: SqlDirectory) -> None:
    await directory.write_group(new_group("alice"), [])
    group = await then(directory)
    outcomes = await asyncio.gather(
        directory.write_group(GroupWrite(group, put=[member("bob")]), []),
        directory.write_group(GroupWrite(group, put=[member("carol")]), []),
        return_exceptions=True,
    )
    codes = [getattr(outcome, "code", None) for outcome in outcomes]
    assert sorted(map(str, codes)) == ["None", "conflict"]
    assert await users_in(directory) == ["alice", "bob" if codes[0] is None else "carol"]


# --- the end of a group, and the next one ------------------------------------------------------


async def test_a_dismissed_group_is_still_there(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    await directory.write_group(new_group("alice", "bob"), [])
    del changes[:]
    dismissed = await then(directory, dismissed_at=NOW)
    await directory.write_group(GroupWrite(dismissed, drop=["bob"]), [notice("n-1")])
    left = msgspec.structs.replace(dismissed, members=1)
    assert changes == [GroupChanged(left), MembershipChanged("team", "bob", False)]
    assert await directory.groups("", 10) == [left]
    assert [m.group_id for m in await directory.memberships("alice")] == ["team"]
    await directory.remove_account("alice")
    await directory.write_group(GroupWrite(await then(directory), answered=["bob"]), [])
    assert (await group_of(directory)).members == 0


async def test_the_id_of_a_dismissed_group_is_used_again(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    await directory.write_group(new_group("alice", "bob", "carol"), [])
    ban, ask = Ban("team", "dave"), JoinRequest("team", "dave", "", NOW)
    dismissed = await then(directory, dismissed_at=NOW)
    await directory.write_group(GroupWrite(dismissed, ban=[ban], ask=[ask]), [])
    del changes[:]
    again = new_group("bob", "dave", version=3)
    await directory.write_group(msgspec.structs.replace(again, fresh=True), [])
    assert await users_in(directory) == ["bob", "dave"]
    assert await directory.bans("team", "", 10) == []
    assert await directory.join_requests("team", "", 10) == []
    assert changes == [
        GroupChanged(msgspec.structs.replace(again.group, members=2)),
        MembershipChanged("team", "bob", True),
        MembershipChanged("team", "dave", True),
        MembershipChanged("team", "alice", False),
        MembershipChanged("team", "carol", False),
    ]


# --- listings --------------------------------------------------------------------------------


async def test_listings_come_in_pages(directory: SqlDirectory) -> None:
    names = [f"user-{number:02}" for number in range(25)]
    await add(directory, *names)
    for group in ("g-2", "g-1", "g-3"):
        await directory.write_group(new_group("user-00", *names[1:], group=group), [])
    assert [(g.group_id, g.members) for g in await directory.groups("", 2)] == [("g-1", 25), ("g-2", 25)]
    assert [g.group_id for g in await directory.groups("g-2", 2)] == ["g-3"]
    assert [m.user_id for m in await directory.members("g-1", "user-19", 10)] == names[20:]
    assert [m.user_id for m in await directory.members("g-1", "", 3)] == names[:3]
    assert [m.group_id for m in await directory.memberships("user-07")] == ["g-1", "g-2", "g-3"]
    found = await directory.groups_by_id(["g-3", "none", "g-1"])
    assert {name: group.members for name, group in found.items()} == {"g-1": 25, "g-3": 25}
    assert await directory.groups_by_id([]) == {}


async def test_ten_thousand_members_are_written_at_once(directory: SqlDirectory, place: Place) -> None:
    names = [f"user-{number:05}" for number in range(10_000)]
    await add_many(place, names)
    await directory.write_group(new_group("alice"), [])
    write = GroupWrite(await then(directory), put=[member(name) for name in names])
    began = perf_counter()
    await directory.write_group(write, [])
    took = perf_counter() - began
    assert (await group_of(directory)).members == 10_001
    assert len(await directory.members_by_id("team", names)) == 10_000
    assert took < 5  # a tenth of that on an idle machine
    assert await refused(
        "not_found",
        directory.write_group(GroupWrite(await then(directory), put=[member("zoe"), *write.put]), []),
    )
