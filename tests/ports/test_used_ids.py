"""The Directory port: ids that differ in case only are one, and a removed account's id stays used."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from broker.ports import GroupWrite, IdTwin
from plugins.persistence.sql_directory import SqlDirectory
from tests.ports.directories import Place, add, is_mariadb, new_group, opened, refused, run_sql


@pytest.fixture
async def directory(place: Place) -> AsyncIterator[SqlDirectory]:
    async with opened(place) as directory:
        yield directory


@pytest.mark.parametrize("other", ["ALICE", "Alice", "alicE"])
@pytest.mark.parametrize("reuse", [False, True])
async def test_another_user_id_in_another_case(directory: SqlDirectory, other: str, reuse: bool) -> None:
    await add(directory, "alice")
    for attempt in (
        directory.add_account(other, None, "user", reuse_id=reuse),
        directory.check_new_id(other, reuse=reuse),
    ):
        assert "differs in case only" in await refused("exists", attempt)
    assert [account.user_id for account in await directory.accounts("", 10)] == ["alice"]
    await add(directory, "alice2")


@pytest.mark.parametrize("again", ["alice", "ALICE"])
async def test_the_id_of_a_removed_account(directory: SqlDirectory, again: str) -> None:
    await add(directory, "alice")
    await directory.remove_account("alice")
    for attempt in (
        directory.add_account(again, None, "user"),
        directory.check_new_id(again, reuse=False),
    ):
        assert "an earlier account" in await refused("exists", attempt)
    assert await directory.account(again) is None
    await directory.check_new_id(again, reuse=True)
    await directory.add_account(again, None, "user", reuse_id=True)
    for user in ("alice", "ALICE"):
        await refused("exists", directory.add_account(user, None, "user", reuse_id=True))
    await directory.remove_account(again)
    await refused("exists", directory.add_account(again, None, "user"))


async def test_reuse_of_an_id_that_was_never_used(directory: SqlDirectory) -> None:
    await directory.check_new_id("alice", reuse=True)
    await directory.add_account("alice", None, "user", reuse_id=True)
    await refused("exists", directory.check_new_id("alice", reuse=True))


async def test_another_group_id_in_another_case(directory: SqlDirectory) -> None:
    await add(directory, "alice", "TEAM")
    await directory.write_group(new_group("alice"), [])
    for group in ("team", "TEAM", "Team"):
        detail = await refused("exists", directory.write_group(new_group("alice", group=group), []))
        assert detail.startswith(f"group {group}")
        assert await directory.same_group(group) == "team"
    assert await directory.same_group("teams") is None
    assert [group.group_id for group in await directory.groups("", 10)] == ["team"]


async def test_the_owner_of_a_dismissed_group_leaves_it_to_nobody(directory: SqlDirectory) -> None:
    await add(directory, "alice", "bob")
    await directory.write_group(new_group("alice", "bob"), [])
    group = await directory.group("team")
    assert group is not None
    await directory.write_group(GroupWrite(replace(group, version=2, dismissed_at=1)), [])
    await directory.remove_account("alice")
    left = await directory.group("team")
    assert left is not None
    assert (left.owner, left.dismissed_at) == ("", 1)
    assert left.version > 2


_OLD_COLLATION = "CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


async def add_twins(place: Place) -> None:
    """A directory of the version before, with ids that differ in case only."""
    async with opened(place) as directory:
        await add(directory, "alice", "bob", "Carol")
        await directory.write_group(new_group("alice"), [])
        await directory.write_group(new_group("alice", group="choir"), [])
    more = ["BOB", "Bob", "cAROL"]
    await run_sql(
        place,
        *(line for name in more for line in _copy("users", "user_id", "alice", name)),
        *_copy("groups", "group_id", "team", "Team"),
        *(f"ALTER TABLE {table} {_OLD_COLLATION}" for table in ("users", "groups") if is_mariadb(place)),
        "DROP TABLE changes",
        "DROP TABLE used_ids",
        "DROP TABLE id_twins",
        "UPDATE alembic_version SET version_num = '0004'",
    )


def _copy(table: str, key: str, original: str, name: str) -> list[str]:
    return [
        f"CREATE TEMPORARY TABLE copied AS SELECT * FROM {table} WHERE {key} = '{original}'",
        f"UPDATE copied SET {key} = '{name}'",
        f"INSERT INTO {table} SELECT * FROM copied",
        "DROP TABLE copied",
    ]


async def test_ids_of_the_version_before_stay_and_are_told(place: Place) -> None:
    await add_twins(place)
    async with opened(place) as directory:
        names = ["BOB", "Bob", "Carol", "alice", "bob", "cAROL"]
        assert [account.user_id for account in await directory.accounts("", 10)] == names
        assert await directory.id_twins(10) == (
            [
                IdTwin("group", "team", "Team"),
                IdTwin("user", "Bob", "BOB"),
                IdTwin("user", "bob", "BOB"),
                IdTwin("user", "cAROL", "Carol"),
            ],
            4,
        )
        told, total = await directory.id_twins(1)
        assert (len(told), total) == (1, 4)
        for name in ("bOB", "BOB", "ALICE"):
            await refused("exists", directory.add_account(name, None, "user", reuse_id=True))
        for group in ("team", "Team", "TEAM", "Choir"):
            await refused("exists", directory.write_group(new_group("alice", group=group), []))


@pytest.mark.parametrize("order", [["BOB", "Bob", "bob"], ["bob", "Bob", "BOB"], ["Bob", "BOB", "bob"]])
async def test_twins_that_are_removed(place: Place, order: list[str]) -> None:
    await add_twins(place)
    async with opened(place) as directory:
        for left, gone in enumerate(order, start=1 - len(order)):
            await directory.remove_account(gone)
            twins, _ = await directory.id_twins(10)
            assert len([twin for twin in twins if twin.id.lower() == "bob"]) == max(0, -left - 1)
            if left:
                detail = await refused("exists", directory.add_account(gone, None, "user", reuse_id=True))
                assert "differs in case only" in detail
        assert "an earlier account" in await refused("exists", directory.add_account("bob", None, "user"))
        await directory.add_account("bob", None, "user", reuse_id=True)
