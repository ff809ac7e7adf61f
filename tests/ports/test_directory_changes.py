"""The Directory port on a server: what one node changes is told on the others, once each."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from msgspec.structs import replace
from sqlalchemy import Engine, event

from broker.cluster.confirming import Confirming
from broker.domain.errors import StoreUnavailableError
from broker.ports import (
    Account,
    AccountChanged,
    Contact,
    ContactChanged,
    DirectoryChange,
    GroupChanged,
    GroupWrite,
    MembershipChanged,
    Profile,
    ProfileChanged,
    TokenRevoked,
)
from plugins.persistence.sql_directory import SqlDirectory
from tests.ports.conftest import SERVERS
from tests.ports.directories import NOW, Place, add, contact, is_mariadb, member, new_group, opened, run_sql
from tests.unit.backplane_kit import Bus, BusBackplane

pytestmark = pytest.mark.parametrize("place", list(SERVERS), indirect=True)

DEADLINE = 10.0


class Told:
    """What the listeners of a directory were told."""

    def __init__(self, directory: SqlDirectory) -> None:
        self.changes: list[DirectoryChange] = []
        directory.on_change(self.changes.append)

    def accounts(self, user: str) -> list[Account | None]:
        return [
            each.account for each in self.changes if isinstance(each, AccountChanged) and each.user_id == user
        ]

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, self.changes
            await asyncio.sleep(0.02)


@pytest.fixture
async def nodes(place: Place) -> AsyncIterator[list[SqlDirectory]]:
    """The directories of two nodes, on one database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(place)) for _ in range(2)]


async def polled(directory: SqlDirectory, times: int = 2) -> None:
    """Wait until whatever was committed before has been told."""
    for _ in range(times):
        before = directory.as_of
        deadline = time.monotonic() + DEADLINE
        while directory.as_of == before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_every_change_is_told_once(nodes: list[SqlDirectory]) -> None:
    first, second = nodes
    here, there = Told(first), Told(second)
    await add(first, "alice", "bob")
    await polled(second)
    alice, bob = [await first.account(user) for user in ("alice", "bob")]
    assert there.changes == [AccountChanged("alice", alice), AccountChanged("bob", bob)]
    del there.changes[:]
    profile = Profile("alice", "Alice 😀")
    await first.write_profile(profile)
    await first.write_contacts([contact("alice", "bob")], [])
    await first.write_group(new_group("alice", "bob"), [])
    await first.revoke_token("bob", "t-1", NOW)
    group = await first.group("team")
    assert group is not None
    expected = [
        ProfileChanged(profile),
        ContactChanged(contact("alice", "bob")),
        GroupChanged(group),
        MembershipChanged("team", "alice", True),
        MembershipChanged("team", "bob", True),
        TokenRevoked("bob", "t-1"),
    ]
    await polled(second)
    assert sorted(there.changes, key=repr) == sorted(expected, key=repr)
    del there.changes[:]
    await second.remove_account("bob")
    await polled(first)
    assert here.changes[-3:] == [
        AccountChanged("bob", None),
        MembershipChanged("team", "bob", False),
        ContactChanged(Contact("alice", "bob")),
    ]
    await polled(second)
    assert there.changes == here.changes[-3:], "its own, which are not told again"


async def test_a_refused_change_is_told_nowhere(nodes: list[SqlDirectory], place: Place) -> None:
    there = Told(nodes[1])
    with pytest.raises(Exception, match="no user"):
        await nodes[0].set_disabled("nobody", True)
    await polled(nodes[1])
    assert there.changes == []
    assert await run_sql(place, "SELECT id FROM changes") == []


async def test_within_a_second(nodes: list[SqlDirectory]) -> None:
    there = Told(nodes[1])
    await add(nodes[0], "alice")
    delays = []
    for number in range(5):
        began = time.monotonic()
        await nodes[0].set_disabled("alice", bool(number % 2))
        count = len(there.changes)
        await there.until(lambda count=count: len(there.changes) > count)
        delays.append(time.monotonic() - began)
    assert sorted(delays)[2] < 1.0


async def test_transactions_that_commit_in_another_order(nodes: list[SqlDirectory], place: Place) -> None:
    there = Told(nodes[1])
    await add(nodes[0], "alice", "bob")
    await polled(nodes[1])
    # As if the transaction with the lower id were still open.
    ((newest,),) = await run_sql(place, "SELECT MAX(id) FROM changes")
    row = "INSERT INTO changes (id, writer, kind, one, other) VALUES ({}, 'another', 'account', '{}', '')"
    await run_sql(place, row.format(newest + 2, "alice"), "SELECT 1")
    await polled(nodes[1])
    await run_sql(place, row.format(newest + 1, "bob"), "SELECT 1")
    await polled(nodes[1], times=4)
    assert [len(there.accounts(user)) for user in ("alice", "bob")] == [2, 2]
    if not is_mariadb(place):  # its counter does not go on by itself
        await run_sql(place, f"SELECT setval('changes_id_seq', {newest + 2})")


async def test_the_last_state_is_the_same_everywhere(nodes: list[SqlDirectory]) -> None:
    told = [Told(node) for node in nodes]
    await add(nodes[0], "alice", "bob")

    async def change(directory: SqlDirectory, seed: int) -> None:
        for number in range(15):
            await directory.set_disabled("alice", (number + seed) % 3 == 0)
            await directory.set_password("bob", str(number))

    await asyncio.gather(*(change(node, seed) for seed, node in enumerate(nodes)))
    for node in nodes:
        await polled(node, times=3)
    for user in ("alice", "bob"):
        account = await nodes[0].account(user)
        assert [each.accounts(user)[-1] for each in told] == [account, account]


async def test_members_that_join_on_both(nodes: list[SqlDirectory]) -> None:
    told = [Told(node) for node in nodes]
    users = [f"user{number}" for number in range(10)]
    await add(nodes[0], "alice", *users)
    for number, user in enumerate(users):
        made = new_group("alice", group=f"g{number}")
        await nodes[number % 2].write_group(
            GroupWrite(made.group, put=[*made.put, member(user, group=f"g{number}")]), []
        )
    for node, each in zip(nodes, told, strict=True):
        await polled(node)
        joins = [c for c in each.changes if isinstance(c, MembershipChanged) and c.user_id != "alice"]
        assert sorted(c.user_id for c in joins) == sorted(users)


async def test_a_commit_whose_outcome_is_not_known(nodes: list[SqlDirectory]) -> None:
    await add(nodes[0], "alice")
    told = Told(nodes[0])

    def fail(_connection: object) -> None:
        event.remove(Engine, "commit", fail)
        raise ConnectionResetError("the connection was lost")

    event.listen(Engine, "commit", fail)
    with pytest.raises(StoreUnavailableError, match="fails"):
        await nodes[0].set_disabled("alice", True)
    assert told.changes == []
    await polled(nodes[0])
    assert told.accounts("alice") == [await nodes[0].account("alice")], "whatever it is"


async def test_a_change_is_confirmed_when_the_other_nodes_have_been_told(nodes: list[SqlDirectory]) -> None:
    bus = Bus()
    for name, directory in zip(("one", "two"), nodes, strict=True):
        directory.confirm_by(Confirming(BusBackplane(bus, name), directory.look).confirm)
    first, second = nodes
    await add(first, "alice", "bob")
    there = Told(second)
    await first.write_group(new_group("alice", "bob"), [])
    for number in range(2, 12):
        there.changes.clear()
        group = await first.group("team")
        assert group is not None
        await first.write_group(
            GroupWrite(replace(group, name=f"Team {number}", version=group.version + 1)), []
        )
        told = [each.group.name for each in there.changes if isinstance(each, GroupChanged)]
        assert told == [f"Team {number}"], "before the author of the change is answered"
