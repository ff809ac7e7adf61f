"""The Directory port on a server: several nodes change one directory at the same time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from msgspec.structs import replace

from broker.ports import AccountChanged, DirectoryChange, DirectoryError, GroupWrite, StoreIdentity
from plugins.persistence.sql_directory import SqlDirectory
from tests.ports.conftest import SERVERS
from tests.ports.directories import (
    NOW,
    Clock,
    Place,
    add,
    add_many,
    contact,
    is_mariadb,
    member,
    new_group,
    notice,
    opened,
    run_sql,
)

pytestmark = pytest.mark.parametrize("place", list(SERVERS), indirect=True)


@pytest.fixture
async def nodes(place: Place) -> AsyncIterator[list[SqlDirectory]]:
    """The directories of two nodes, on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(place)) for _ in range(2)]


async def outcomes(*attempts: Awaitable[object]) -> Counter[str]:
    """How often what was refused, by its code; "" is success."""
    found = await asyncio.gather(*attempts, return_exceptions=True)
    for error in found:
        if isinstance(error, BaseException) and not isinstance(error, DirectoryError):
            raise error
    return Counter(getattr(each, "code", "") for each in found)


async def until_no_conflict(attempt: Callable[[], Awaitable[object]]) -> None:
    """As the handlers do, only longer."""
    for _ in range(500):
        try:
            await attempt()
        except DirectoryError as error:
            if error.code != "conflict":
                raise
        else:
            return
    raise AssertionError("500 conflicts")


@pytest.mark.parametrize("again", [False, True])
async def test_one_id_is_given_once(nodes: list[SqlDirectory], again: bool) -> None:
    first, second = nodes
    names = ["alice", "ALICE", "Alice"]
    if again:
        await add(first, "aLICE")
        await first.remove_account("aLICE")
    for name in names:
        attempts = [
            each.add_account(other, None, "user", reuse_id=True) for each in nodes for other in (name, *names)
        ]
        assert await outcomes(*attempts) == {"": 1, "exists": 7}
        (account,) = await second.accounts("", 10)
        await first.remove_account(account.user_id)
    await add(first, "bob")
    made = [each.write_group(new_group("bob", group=name), []) for each in nodes for name in ("team", "TEAM")]
    assert await outcomes(*made) == {"": 1, "exists": 3}


async def test_fifty_join_a_group_with_room_for_twenty(nodes: list[SqlDirectory], place: Place) -> None:
    users = [f"user{number}" for number in range(50)]
    await add_many(place, ["alice", *users])
    await nodes[0].write_group(new_group("alice"), [])

    turns = asyncio.Semaphore(10)  # else nearly all attempts are conflicts

    async def join(directory: SqlDirectory, user: str) -> None:
        async with turns:
            group = await directory.group("team")
            assert group is not None
            if group.members >= 20:
                raise DirectoryError("quota", "it is full")
            write = GroupWrite(replace(group, version=group.version + 1), put=[member(user)])
            await directory.write_group(write, [notice(f"n-{user}")])

    attempts = [
        until_no_conflict(lambda user=user, at=number % 2: join(nodes[at], user))
        for number, user in enumerate(users)
    ]
    assert await outcomes(*attempts) == {"": 19, "quota": 31}
    members = await nodes[1].members("team", "", 100)
    group = await nodes[0].group("team")
    assert group is not None
    assert (len(members), group.members, group.version) == (20, 20, 20)
    told = {each.id for each in await nodes[0].notices(100)}
    assert told == {f"n-{each.user_id}" for each in members if each.user_id != "alice"}


async def test_two_transfer_one_group(nodes: list[SqlDirectory]) -> None:
    await add(nodes[0], "alice", "bob", "carol")
    await nodes[0].write_group(new_group("alice", "bob", "carol"), [])
    for round_ in range(10):
        group = await nodes[0].group("team")
        assert group is not None
        attempts = []
        for directory, heir in zip(nodes, ("bob", "carol"), strict=True):
            changed = replace(group, owner=heir, version=group.version + 1)
            put = [member("alice"), member(heir, "owner")]
            attempts.append(directory.write_group(GroupWrite(changed, put=put), []))
        assert await outcomes(*attempts) == {"": 1, "conflict": 1}
        after = await nodes[round_ % 2].group("team")
        assert after is not None
        (owner,) = await nodes[0].admins("team")
        assert (owner.user_id, after.version) == (after.owner, group.version + 1)
        back = replace(after, owner="alice", version=after.version + 1)
        put = [member(after.owner), member("alice", "owner")]
        await nodes[1].write_group(GroupWrite(back, put=put), [])


async def test_requests_that_cross(nodes: list[SqlDirectory]) -> None:
    pairs = [(f"a{number}", f"b{number}") for number in range(10)]
    await add(nodes[0], *(user for pair in pairs for user in pair))
    attempts = []
    for one, other in pairs:  # each node writes both directions, in the other order
        attempts += [
            nodes[0].write_contacts([contact(one, other), contact(other, one)], [notice(f"n-{one}")]),
            nodes[1].write_contacts([contact(other, one), contact(one, other)], [notice(f"n-{other}")]),
        ]
    assert await outcomes(*attempts) == {"": 10, "conflict": 10}
    assert len(await nodes[0].contacts_between([*pairs, *((b, a) for a, b in pairs)])) == 20
    assert len(await nodes[0].notices(100)) == 10


async def test_who_is_removed_gets_nothing_new(nodes: list[SqlDirectory]) -> None:
    for number in range(10):
        user = f"user{number}"
        await add(nodes[0], user, f"peer{number}")
        group = f"group{number}"
        found = await outcomes(
            nodes[0].remove_account(user),
            nodes[1].write_group(new_group(user, group=group), []),
            nodes[1].write_contacts([contact(f"peer{number}", user)], []),
            nodes[1].revoke_token(user, f"token{number}", NOW),
        )
        assert set(found) <= {"", "not_found", "is_owner"}
        if await nodes[0].account(user) is None:
            assert await nodes[0].group(group) is None
            assert await nodes[0].contacts_between([(f"peer{number}", user)]) == {}
            assert not await nodes[0].is_revoked(f"token{number}")
        else:
            assert (await nodes[1].members(group, "", 10))[0].user_id == user


async def test_each_password_ends_the_tokens_before_it(nodes: list[SqlDirectory]) -> None:
    await add(nodes[0], "alice")
    await asyncio.gather(*(nodes[number % 2].set_password("alice", str(number)) for number in range(20)))
    account = await nodes[0].account("alice")
    assert account is not None
    assert account.tokens_after == NOW // 1000 + 20


async def test_one_token_is_revoked_by_both(nodes: list[SqlDirectory]) -> None:
    await add(nodes[0], "alice")
    for number in range(10):
        await asyncio.gather(*(each.revoke_token("alice", f"t-{number}", NOW) for each in nodes))
        assert await nodes[0].is_revoked(f"t-{number}")


async def test_two_new_nodes_leave_one_identity(nodes: list[SqlDirectory], place: Place) -> None:
    identities = [StoreIdentity(str(number) * 32, 1) for number in range(2)]
    await asyncio.gather(
        *(node.set_store_identity(identity) for node, identity in zip(nodes, identities, strict=True))
    )
    assert await nodes[0].store_identity() in identities
    assert len(await run_sql(place, "SELECT id FROM store_identity")) == 1


async def test_notices_are_dropped_by_both(nodes: list[SqlDirectory]) -> None:
    await add(nodes[0], "alice", "bob")
    names = [f"n-{number}" for number in range(200)]
    await nodes[0].write_contacts([contact("alice", "bob")], [notice(name) for name in names])
    await asyncio.gather(*(each.drop_notices(names[::step]) for each in nodes for step in (1, -1)))
    assert await nodes[1].notices(10) == []


async def test_listeners_hear_changes_in_the_order_of_their_commits(nodes: list[SqlDirectory]) -> None:
    directory = nodes[0]
    await add(directory, "alice")
    told: list[DirectoryChange] = []
    directory.on_change(told.append)
    await asyncio.gather(*(directory.set_password("alice", str(number)) for number in range(50)))
    ends = [
        change.account.tokens_after
        for change in told
        if isinstance(change, AccountChanged) and change.account
    ]
    assert len(ends) == 50
    assert ends == sorted(ends)


async def test_many_at_once_share_few_connections(place: Place) -> None:
    clock = Clock()
    async with opened(place, clock) as directory:
        await add(directory, "alice")
        found = await asyncio.gather(*(directory.account("alice") for _ in range(500)))
        assert None not in found
        if is_mariadb(place):
            query = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE()"
        else:
            query = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()"
        ((count,),) = await run_sql(place, query)
        assert count <= 11, "those that are kept, and the one that asks"
