"""The identity of a store, and of the directory."""

from pathlib import Path

from broker.ports import StoreIdentity
from tests.ports.conftest import OpenedStores
from tests.ports.directories import opened

FIRST = StoreIdentity("0123456789abcdef0123456789abcdef", 1)
SECOND = StoreIdentity("fedcba9876543210fedcba9876543210", 2**40)


async def test_a_new_store_has_none_and_keeps_the_one_it_is_given(stores: OpenedStores) -> None:
    assert await stores.identified.store_identity() is None
    await stores.identified.set_store_identity(FIRST)
    assert await stores.identified.store_identity() == FIRST
    await stores.identified.set_store_identity(SECOND)
    await stores.reopen()
    assert await stores.identified.store_identity() == SECOND


async def test_so_does_the_directory(tmp_path: Path) -> None:
    async with opened(tmp_path / "directory.db") as directory:
        assert await directory.store_identity() is None
        await directory.set_store_identity(FIRST)
        await directory.set_store_identity(SECOND)
    async with opened(tmp_path / "directory.db") as directory:
        assert await directory.store_identity() == SECOND
