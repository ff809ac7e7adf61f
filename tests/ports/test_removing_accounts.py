"""The Directory port: an account goes with its memberships and the notices of that, or not at all."""

from collections.abc import AsyncIterator

import pytest

from broker.ports import DirectoryError, Notice
from plugins.persistence.sql_directory import SqlDirectory
from tests.ports.directories import Place, add, new_group, opened

LEFT = Notice("n1", "bob", "groups/one", b"{}")


@pytest.fixture
async def directory(place: Place) -> AsyncIterator[SqlDirectory]:
    """Alice's groups `one` and `two`, with Bob in them."""
    async with opened(place) as directory:
        await add(directory, "alice", "bob")
        for group in ("one", "two"):
            await directory.write_group(new_group("alice", "bob", group=group), [])
        yield directory


@pytest.mark.parametrize("groups", [["one"], ["one", "two", "three"], []])
async def test_other_groups_than_the_caller_knows(directory: SqlDirectory, groups: list[str]) -> None:
    with pytest.raises(DirectoryError) as raised:
        await directory.remove_account("bob", groups, [LEFT])
    assert raised.value.code == "conflict"
    assert await directory.account("bob") is not None
    assert [member.group_id for member in await directory.memberships("bob")] == ["one", "two"]
    assert await directory.notices(10) == []


async def test_with_the_groups(directory: SqlDirectory) -> None:
    await directory.remove_account("bob", ["two", "one"], [LEFT])
    assert await directory.account("bob") is None
    assert await directory.notices(10) == [LEFT]
    group = await directory.group("one")
    assert group is not None
    assert (group.members, group.version) == (1, 2)


async def test_whichever_groups(directory: SqlDirectory) -> None:
    await directory.remove_account("bob")
    assert await directory.memberships("bob") == []
