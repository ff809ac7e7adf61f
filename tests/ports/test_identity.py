"""The identity of a store, and of the directory."""

from broker.ports import Group, GroupWrite, StoreIdentity
from tests.ports.conftest import OpenedStores
from tests.ports.directories import NOW, Place, member, opened

FIRST = StoreIdentity("0123456789abcdef0123456789abcdef", 1)
SECOND = StoreIdentity("fedcba9876543210fedcba9876543210", 2**40)


async def test_a_new_store_has_none_and_keeps_the_one_it_is_given(stores: OpenedStores) -> None:
    assert await stores.identified.store_identity() is None
    await stores.identified.set_store_identity(FIRST)
    assert await stores.identified.store_identity() == FIRST
    await stores.identified.set_store_identity(SECOND)
    await stores.reopen()
    assert await stores.identified.store_identity() == SECOND


async def test_so_does_the_directory(place: Place) -> None:
    async with opened(place) as directory:
        assert await directory.store_identity() is None
        await directory.set_store_identity(FIRST)
        await directory.set_store_identity(SECOND)
    async with opened(place) as directory:
        assert await directory.store_identity() == SECOND


async def test_floors_are_lowered_to_the_heads_of_the_logs(place: Place) -> None:
    async with opened(place) as directory:
        for user, floor in (("alice", 7), ("bob", 2)):
            await directory.add_account(user, None, "user", floor)
        made = GroupWrite(
            Group("team", "Team", "alice", NOW, 0, floor=9),
            put=[member("alice", "owner", joined_seq=9), member("bob", joined_seq=3)],
        )
        await directory.write_group(made, [])
        await directory.lower_floors({"team": 4, "other": 1}, {"alice": 0, "bob": 5})
        group = await directory.group("team")
        assert group is not None
        assert group.floor == 4
        assert [each.joined_seq for each in await directory.members("team", "", 10)] == [4, 3]
        assert [each.inbox_floor for each in await directory.accounts("", 10)] == [0, 2]
