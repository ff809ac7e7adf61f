"""The Directory port: accounts, contacts and notices, with real storage."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from broker.domain.errors import StoreError, StoreUnavailableError
from broker.ports import (
    Account,
    AccountChanged,
    Contact,
    ContactChanged,
    DirectoryChange,
    MembershipChanged,
    Profile,
    ProfileChanged,
    TokenRevoked,
)
from plugins.persistence.sql_directory import SqlDirectory
from tests.ports.directories import (
    NOW,
    Clock,
    Place,
    add,
    add_many,
    contact,
    new_group,
    notice,
    opened,
    refused,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def directory(place: Place, clock: Clock) -> AsyncIterator[SqlDirectory]:
    async with opened(place, clock) as directory:
        yield directory


@pytest.fixture
def changes(directory: SqlDirectory) -> list[DirectoryChange]:
    told: list[DirectoryChange] = []
    directory.on_change(told.append)
    return told


async def account_of(directory: SqlDirectory, user: str) -> Account:
    account = await directory.account(user)
    assert account is not None
    return account


# --- accounts ----------------------------------------------------------------------------


async def test_accounts(directory: SqlDirectory, changes: list[DirectoryChange]) -> None:
    assert await directory.account("alice") is None
    added = await directory.add_account("alice", "password", "admin", 7)
    assert added == Account("alice", "admin", False, "hash of password", NOW, 7, NOW // 1000)
    assert await directory.account("alice") == added
    await directory.set_disabled("alice", True)
    disabled = await account_of(directory, "alice")
    assert disabled.disabled
    await directory.set_disabled("alice", False)
    await directory.remove_account("alice")
    assert await directory.account("alice") is None
    assert changes == [
        AccountChanged("alice", added),
        AccountChanged("alice", disabled),
        AccountChanged("alice", added),
        AccountChanged("alice", None),
    ]


async def test_account_without_a_password(directory: SqlDirectory) -> None:
    assert (await directory.add_account("pump", None, "service")).password_hash is None


async def test_refused_operations_on_accounts_change_and_tell_nothing(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    await directory.add_account("alice", "password", "user")
    before = await directory.accounts("", 10)
    del changes[:]
    await refused("exists", directory.add_account("alice", "x", "admin"))
    for attempt in (
        directory.set_password("nobody", "x"),
        directory.set_disabled("nobody", True),
        directory.remove_account("nobody"),
        directory.write_profile(Profile("nobody", "Nobody")),
        directory.revoke_token("nobody", "t-1", NOW),
        directory.revoke_tokens("nobody", NOW // 1000),
    ):
        assert await refused("not_found", attempt) == "no user nobody"
    assert await directory.accounts("", 10) == before
    assert not await directory.is_revoked("t-1")
    assert changes == []


async def test_accounts_come_in_pages(directory: SqlDirectory) -> None:
    names = [f"user-{number:02}" for number in range(25)]
    await add(directory, *reversed(names))
    seen: list[str] = []
    while page := await directory.accounts(seen[-1] if seen else "", 10):
        seen += [account.user_id for account in page]
    assert seen == names


async def test_a_removed_user_leaves_nothing(directory: SqlDirectory, changes: list[DirectoryChange]) -> None:
    await add(directory, "alice", "bob", "carol")
    await directory.write_group(new_group("alice", "bob"), [])
    await directory.write_group(new_group("alice", "carol", "bob", group="choir"), [])
    pairs = [("alice", "bob"), ("bob", "alice"), ("carol", "bob"), ("alice", "carol")]
    await directory.write_contacts([contact(*pair) for pair in pairs], [])
    await directory.revoke_token("bob", "t-1", NOW)
    del changes[:]
    await directory.remove_account("bob")
    assert changes == [
        AccountChanged("bob", None),
        MembershipChanged("choir", "bob", False),
        MembershipChanged("team", "bob", False),
        ContactChanged(Contact("alice", "bob")),
        ContactChanged(Contact("carol", "bob")),
    ]
    assert [m.user_id for m in await directory.members("choir", "", 10)] == ["alice", "carol"]
    assert set(await directory.contacts_between(pairs)) == {("alice", "carol")}
    await directory.add_account("bob", None, "user", reuse_id=True)
    assert await directory.memberships("bob") == []
    assert not await directory.is_revoked("t-1")
    groups = await directory.groups_by_id(["team", "choir"])
    assert {group.version for group in groups.values()} == {2}  # what was worked out with bob in it is old


async def test_who_owns_a_group_is_not_removed(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    await add(directory, "alice")
    await directory.write_group(new_group("alice"), [])
    await directory.write_contacts([contact("alice", "alice")], [])
    del changes[:]
    assert "owns group team" in await refused("is_owner", directory.remove_account("alice"))
    assert changes == []
    assert await directory.account("alice") is not None
    assert await directory.membership("team", "alice") is not None
    assert len(await directory.contacts("alice", "", 10)) == 1


async def test_who_is_cancelled_while_writing_is_told_of_all_the_same(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    await add(directory, "alice")
    del changes[:]
    told = asyncio.Event()
    directory.on_change(lambda _: told.set())
    writing = asyncio.create_task(directory.set_disabled("alice", True))
    await asyncio.sleep(0)  # it has begun
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await asyncio.wait_for(told.wait(), 10)
    assert (await account_of(directory, "alice")).disabled
    assert [change.account and change.account.disabled for change in changes] == [True]  # type: ignore[union-attr]


# --- passwords and tokens ------------------------------------------------------------------


async def test_a_new_password_ends_the_tokens(
    directory: SqlDirectory, clock: Clock, changes: list[DirectoryChange]
) -> None:
    await directory.add_account("alice", "password", "user")
    clock.now += 10_000
    await directory.set_password("alice", "other")
    account = await account_of(directory, "alice")
    assert account.password_hash == "hash of other"
    # One that was issued in the second of the change may be of who knew the old one.
    assert account.tokens_after == clock.now // 1000 + 1
    assert changes[-1] == AccountChanged("alice", account)


async def test_tokens_once_ended_stay_so(directory: SqlDirectory, changes: list[DirectoryChange]) -> None:
    await add(directory, "alice")
    later = NOW // 1000 + 60
    await directory.revoke_tokens("alice", later)
    account = await account_of(directory, "alice")
    assert account.tokens_after == later
    assert changes[-1] == AccountChanged("alice", account)
    await directory.revoke_tokens("alice", later - 30)
    assert (await account_of(directory, "alice")).tokens_after == later
    await directory.set_password("alice", "other")  # ends those issued since, whatever the wall clock says
    assert (await account_of(directory, "alice")).tokens_after == later + 1


async def test_tokens_of_who_had_the_id_before_are_not_accepted(
    directory: SqlDirectory, clock: Clock
) -> None:
    await add(directory, "alice")
    await directory.remove_account("alice")
    clock.now += 5000
    await directory.add_account("alice", None, "user", reuse_id=True)
    assert (await account_of(directory, "alice")).tokens_after == clock.now // 1000


async def test_revoked_tokens_are_forgotten_after_their_end(
    directory: SqlDirectory, clock: Clock, changes: list[DirectoryChange]
) -> None:
    await add(directory, "alice", "bob")
    end = NOW // 1000 + 10
    await directory.revoke_token("alice", "t-1", end)
    await directory.revoke_token("alice", "t-1", end)  # once more is no error
    await directory.revoke_token("bob", "t-2", end + 100)
    assert changes[2:] == [TokenRevoked("alice", "t-1")] * 2 + [TokenRevoked("bob", "t-2")]
    assert [await directory.is_revoked(token) for token in ("t-1", "t-2", "t-3")] == [True, True, False]
    clock.now += 11_000  # the wall clock may be set back again
    await directory.revoke_token("bob", "t-3", end + 100)
    assert [await directory.is_revoked(token) for token in ("t-1", "t-2", "t-3")] == [True, True, True]
    clock.now += 86_400_000
    await directory.revoke_token("bob", "t-3", end + 100)
    assert [await directory.is_revoked(token) for token in ("t-1", "t-2", "t-3")] == [False, True, True]


# --- profiles --------------------------------------------------------------------------------


async def test_profiles(directory: SqlDirectory, changes: list[DirectoryChange]) -> None:
    await directory.add_account("alice", "password", "user")
    account = await account_of(directory, "alice")
    assert await directory.profiles(["alice", "nobody"]) == {"alice": Profile("alice")}
    profile = Profile("alice", "Alice Lidé 👍", "https://host/alice.png", "contacts", "nobody", False)
    await directory.write_profile(profile)
    assert changes[-1] == ProfileChanged(profile)
    assert await directory.profiles(["alice"]) == {"alice": profile}
    assert await account_of(directory, "alice") == account
    assert await directory.profiles([]) == {}


async def test_profiles_of_many(directory: SqlDirectory, place: Place) -> None:
    names = [f"user-{number:04}" for number in range(1100)]
    await add_many(place, names)
    assert set(await directory.profiles(["nobody", *names, "user-0000"])) == set(names)


# --- contacts ----------------------------------------------------------------------------------


async def test_contacts(directory: SqlDirectory, changes: list[DirectoryChange]) -> None:
    await add(directory, "alice", "bob")
    sent = Contact("alice", "bob", "sent", False, "Bobby", "hi, it's me", NOW, 1)
    received = Contact("bob", "alice", "received", True, "", "hi, it's me", NOW, 1)
    del changes[:]
    await directory.write_contacts([sent, received], [notice("n-1"), notice("n-2")])
    assert changes == [ContactChanged(sent), ContactChanged(received)]
    pairs = [("alice", "bob"), ("bob", "alice"), ("bob", "bob"), ("nobody", "alice")]
    assert await directory.contacts_between(pairs) == {pairs[0]: sent, pairs[1]: received}
    assert await directory.contacts("alice", "", 10) == [sent]
    accepted = contact("alice", "bob", 2, blocked=True)
    await directory.write_contacts([accepted], [])
    assert await directory.contacts_between(pairs) == {pairs[0]: accepted, pairs[1]: received}
    assert [kept.id for kept in await directory.notices(10)] == ["n-1", "n-2"]


@pytest.mark.parametrize(
    ("code", "written"),
    [
        ("conflict", [contact("bob", "alice"), contact("alice", "bob", 1)]),  # is there
        ("conflict", [contact("bob", "alice"), contact("alice", "bob", 3)]),  # one was missed
        ("conflict", [contact("bob", "alice"), contact("alice", "carol", 2)]),  # is not there
        ("conflict", [contact("bob", "alice"), contact("alice", "carol", 0)]),  # no version at all
        ("not_found", [contact("bob", "alice"), contact("alice", "zoe"), contact("yan", "alice")]),
        ("not_found", [contact("bob", "alice"), contact("zoe", "alice"), contact("alice", "yan")]),
    ],
)
async def test_refused_contacts_change_and_tell_nothing(
    directory: SqlDirectory, changes: list[DirectoryChange], code: str, written: list[Contact]
) -> None:
    await add(directory, "alice", "bob", "carol")
    first = contact("alice", "bob")
    await directory.write_contacts([first], [])
    del changes[:]
    detail = await refused(code, directory.write_contacts(written, [notice("n-1")]))
    assert code == "conflict" or detail == "no user zoe"
    pairs = [("alice", "bob"), ("bob", "alice"), ("alice", "carol")]
    assert await directory.contacts_between(pairs) == {("alice", "bob"): first}
    assert await directory.notices(10) == []
    assert changes == []


async def test_of_two_changes_of_one_contact_one_is_refused(directory: SqlDirectory) -> None:
    await add(directory, "alice", "bob")
    for version in (1, 2):
        outcomes = await asyncio.gather(
            *(directory.write_contacts([contact("alice", "bob", version)], []) for _ in range(2)),
            return_exceptions=True,
        )
        assert {getattr(outcome, "code", None) for outcome in outcomes} == {None, "conflict"}


async def test_many_contacts(directory: SqlDirectory, place: Place) -> None:
    names = [f"user-{number:04}" for number in range(1200)]
    await add_many(place, ["alice", *names])
    await directory.write_contacts([contact("alice", name) for name in names], [])
    await directory.write_contacts([contact(name, "alice") for name in names[:800]], [])
    pairs = [pair for name in names[:1000] for pair in (("alice", name), (name, "alice"))]
    assert len(await directory.contacts_between(pairs)) == 1800
    neighbours = list(pairwise(names[:300]))
    await directory.write_contacts([contact(*pair) for pair in neighbours[::2]], [])
    some = [*neighbours, *pairs[:6], *neighbours[:4], ("alice", "nobody"), ("nobody", "alice")]
    assert set(await directory.contacts_between(some)) == {*neighbours[::2], *pairs[:6]}
    seen: list[str] = []
    while page := await directory.contacts("alice", seen[-1] if seen else "", 500):
        seen += [found.peer_id for found in page]
    assert seen == names
    assert await directory.contacts_between([]) == {}


# --- notices -------------------------------------------------------------------------------------


async def test_notices_are_kept_in_order_until_they_are_dropped(directory: SqlDirectory) -> None:
    await add(directory, "alice", "bob")
    await directory.write_contacts([contact("alice", "bob")], [notice("n-9"), notice("n-1", "alice")])
    await directory.write_group(new_group("alice"), [notice("n-5")])
    assert await directory.notices(2) == [notice("n-9"), notice("n-1", "alice")]
    await directory.drop_notices(["n-9", "n-5", "n-7"])
    await directory.write_contacts([contact("alice", "bob", 2)], [notice("n-0")])
    await directory.drop_notices([])
    assert [kept.id for kept in await directory.notices(10)] == ["n-1", "n-0"]
    await directory.drop_notices([f"n-{number}" for number in range(1200)])
    assert await directory.notices(10) == []


async def test_a_notice_that_is_there_already_undoes_the_write(
    directory: SqlDirectory, changes: list[DirectoryChange]
) -> None:
    await add(directory, "alice", "bob")
    await directory.write_contacts([contact("alice", "bob")], [notice("n-1")])
    del changes[:]
    with pytest.raises(StoreError, match=r"(?i)unique|duplicate"):
        await directory.write_contacts([contact("alice", "bob", 2)], [notice("n-2"), notice("n-1")])
    assert [found.version for found in await directory.contacts("alice", "", 10)] == [1]
    assert len(await directory.notices(10)) == 1
    assert changes == []


# --- the store -----------------------------------------------------------------------------------


async def test_what_cannot_be_stored_is_an_error_of_the_store(directory: SqlDirectory) -> None:
    with pytest.raises(StoreError, match=r"too large|[Oo]ut of range|does not fit"):
        await directory.add_account("alice", None, "user", 2**64)
    with pytest.raises(StoreError, match=r"surrogates|does not fit"):
        await directory.account("\ud800")
    assert await directory.accounts("", 10) == []


async def test_after_the_end_it_says_that_it_is_closed(place: Place) -> None:
    async with opened(place) as directory:
        pass
    with pytest.raises(StoreError, match="closed"):
        await directory.account("alice")


async def test_a_file_that_is_put_back_has_nothing_of_what_was_refused(tmp_path: Path) -> None:
    file = tmp_path / "directory.db"
    changes: list[DirectoryChange] = []
    async with opened(file) as directory:
        directory.on_change(changes.append)
        file.rename(tmp_path / "aside")
        with pytest.raises(StoreUnavailableError, match="removed or replaced"):
            await add(directory, "alice")
        (tmp_path / "aside").rename(file)
        assert (await directory.account("alice"), changes) == (None, [])
        await add(directory, "alice")
        assert (await account_of(directory, "alice")).user_id == "alice"
