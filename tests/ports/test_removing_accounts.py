"""The Directory port: an account goes with its memberships and the notices of that, or not at all."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.domain.directory import Group, Membership
from broker.ports import DirectoryError, GroupWrite, Notice
from plugins.persistence.sql_directory import SqlDirectory, open_directory

LEFT = Notice("n1", "bob", "groups/one", b"{}")


async def hash_password(password: str) -> str:
    return f"hash of {password}"


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[SqlDirectory]:
    """Alice's groups `one` and `two`, with Bob in them."""
    opened = open_directory(f"sqlite:///{tmp_path / 'directory.db'}", hash_password, lambda: 1234)
    for user in ("alice", "bob"):
        await opened.add_account(user, None, "user")
    for group in ("one", "two"):
        put = [Membership(group, "alice", "owner", 0), Membership(group, "bob", "member", 0)]
        await opened.write_group(GroupWrite(Group(group, group, "alice", 1234, 2), put=put), [])
    yield opened
    await opened.close()


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
