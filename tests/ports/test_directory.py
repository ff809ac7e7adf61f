"""The Directory port: every implementation, with real storage."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.domain.errors import StoreError
from broker.ports import AccountChanged, DirectoryChange, DirectoryError, MembershipChanged
from plugins.persistence.sql_directory import SqlDirectory, open_directory


async def hash_password(password: str) -> str:
    return f"hash of {password}"


def open_at(path: Path) -> SqlDirectory:
    return open_directory(f"sqlite:///{path}", hash_password, lambda: 1234)


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[SqlDirectory]:
    opened = open_at(tmp_path / "directory.db")
    yield opened
    await opened.close()


@pytest.fixture
def changes(directory: SqlDirectory) -> list[DirectoryChange]:
    told: list[DirectoryChange] = []
    directory.on_change(told.append)
    return told


async def add(directory: SqlDirectory, *users: str) -> None:
    for user in users:
        await directory.add_account(user, "password", "user")


async def test_accounts(directory: SqlDirectory, changes: list[DirectoryChange]) -> None:
    assert await directory.account("alice") is None
    account = await directory.add_account("alice", "password", "admin")
    assert account == await directory.account("alice")
    assert (account.role, account.disabled, account.created_at) == ("admin", False, 1234)
    assert account.password_hash == "hash of password"
    await directory.set_password("alice", "other")
    await directory.set_disabled("alice", True)
    account = await directory.account("alice")
    assert account is not None
    assert (account.password_hash, account.disabled) == ("hash of other", True)
    await directory.remove_account("alice")
    assert await directory.account("alice") is None
    assert [c.account is not None and c.account.disabled for c in changes] == [False, False, True, False]
    assert changes[-1] == AccountChanged("alice", None)


async def test_account_without_a_password(directory: SqlDirectory) -> None:
    assert (await directory.add_account("service", None, "user")).password_hash is None


async def test_refused_operations_change_and_tell_nothing(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    await add(directory, "alice", "bob")
    await directory.create_group("team", "Team", "alice", ["bob"], 0)
    del changes[:]
    for code, refused in (
        ("exists", directory.add_account("alice", "x", "user")),
        ("not_found", directory.set_password("nobody", "x")),
        ("not_found", directory.set_disabled("nobody", True)),
        ("not_found", directory.remove_account("nobody")),
        ("exists", directory.create_group("team", "T", "bob", [], 0)),
        ("not_found", directory.create_group("other", "O", "nobody", [], 0)),
        ("not_found", directory.create_group("other", "O", "alice", ["bob", "nobody"], 0)),
        ("not_found", directory.add_members("no-group", ["bob"], 0)),
        ("not_found", directory.add_members("team", ["nobody"], 0)),
        ("not_found", directory.remove_members("no-group", ["bob"])),
        ("is_owner", directory.remove_members("team", ["bob", "alice"])),
        ("not_found", directory.dismiss_group("no-group")),
        ("is_owner", directory.remove_account("alice")),
    ):
        with pytest.raises(DirectoryError) as raised:
            await refused
        assert raised.value.code == code
    assert changes == []
    assert await directory.group("other") is None
    assert [m.user_id for m in await directory.members("team", "", 10)] == ["alice", "bob"]


async def test_groups(directory: SqlDirectory, changes: list[DirectoryChange]) -> None:
    await add(directory, "alice", "bob", "carol")
    del changes[:]
    group = await directory.create_group("team", "The team", "alice", ["bob", "bob", "alice"], 5)
    assert (group.name, group.owner, group.members) == ("The team", "alice", 2)
    assert await directory.add_members("team", ["carol", "bob"], 9) == 1
    assert await directory.group("team") is not None
    memberships = {m.user_id: m for m in await directory.members("team", "", 10)}
    assert {u: (m.role, m.joined_seq) for u, m in memberships.items()} == {
        "alice": ("owner", 5),
        "bob": ("member", 5),
        "carol": ("member", 9),
    }
    assert await directory.membership("team", "carol") == memberships["carol"]
    assert [m.group_id for m in await directory.memberships("carol")] == ["team"]
    assert await directory.remove_members("team", ["bob", "nobody"]) == 1
    assert await directory.membership("team", "bob") is None
    await directory.dismiss_group("team")
    assert await directory.group("team") is None
    assert await directory.memberships("alice") == []
    assert changes == [
        MembershipChanged("team", "alice", True),
        MembershipChanged("team", "bob", True),
        MembershipChanged("team", "carol", True),
        MembershipChanged("team", "bob", False),
        MembershipChanged("team", "alice", False),
        MembershipChanged("team", "carol", False),
    ]


async def test_removing_a_user_takes_them_out_of_groups(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    await add(directory, "alice", "bob")
    await directory.create_group("team", "Team", "alice", ["bob"], 0)
    del changes[:]
    await directory.remove_account("bob")
    assert changes == [AccountChanged("bob", None), MembershipChanged("team", "bob", False)]
    assert [m.user_id for m in await directory.members("team", "", 10)] == ["alice"]


async def test_listings_come_in_pages(directory: SqlDirectory) -> None:
    names = [f"user-{n:02}" for n in range(25)]
    await add(directory, *names)
    for name in names[:3]:
        await directory.create_group(f"g-{name}", name, name, names, 0)
    seen: list[str] = []
    while page := await directory.accounts(seen[-1] if seen else "", 10):
        seen += [account.user_id for account in page]
    assert seen == names
    assert [(g.group_id, g.members) for g in await directory.groups("", 2)] == [
        ("g-user-00", 25),
        ("g-user-01", 25),
    ]
    assert [m.user_id for m in await directory.members("g-user-00", "user-19", 10)] == names[20:]


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = open_at(tmp_path / "directory.db")
    await add(first, "alice")
    await first.create_group("team", "Team", "alice", [], 0)
    await first.close()
    second = open_at(tmp_path / "directory.db")
    assert await second.account("alice") is not None
    assert await second.group("team") is not None
    await second.close()


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "directory.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_at(tmp_path / "directory.db")
    with pytest.raises(StoreError, match="unable to open"):
        open_at(tmp_path / "absent" / "directory.db")
