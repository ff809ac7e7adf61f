"""The directory in SQL, put together. Accounts, contacts, groups and notices have a module each: a class with
the port's methods, and below it the statements that those methods run in a transaction."""

from collections.abc import Awaitable, Callable

from broker.ports import DirectoryChange
from plugins.persistence.sql_directory.accounts import SqlAccounts
from plugins.persistence.sql_directory.contacts import SqlContacts
from plugins.persistence.sql_directory.floors import SqlFloors
from plugins.persistence.sql_directory.groups import SqlGroups
from plugins.persistence.sql_directory.identity import SqlIdentity
from plugins.persistence.sql_directory.notices import SqlNotices
from plugins.persistence.sql_directory.opening import open_database
from plugins.persistence.sql_directory.pool import Pool
from plugins.persistence.sql_directory.upkeep import SqlUpkeep
from plugins.persistence.sql_directory.used_ids import SqlUsedIds


class SqlDirectory(
    SqlAccounts, SqlUsedIds, SqlContacts, SqlGroups, SqlNotices, SqlFloors, SqlIdentity, SqlUpkeep
):
    """See `broker.ports.Directory`. All parts use one `Database`, so one close ends them all."""

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        self._database.on_change(callback)

    async def close(self) -> None:
        """Finish the calls that have begun, then close the connections. Later calls raise `StoreError`."""
        await self._database.close()

    def confirm_by(self, confirm: Callable[[], Awaitable[None]]) -> None:
        """Await `confirm()` after each change of this node, when its own listeners have been told, and
        before the method that made the change returns. Only a directory on a server does, which other nodes
        may use."""
        self._database.confirm_by(confirm)

    async def look(self) -> None:
        """Tell the listeners now what other nodes have changed. Raises `StoreError`."""
        await self._database.look()

    @property
    def as_of(self) -> float | None:
        """The monotonic time in seconds as of which the listeners know what other nodes have changed; None if
        there are no others."""
        return self._database.as_of


async def open_directory(
    url: str,
    hash_password: Callable[[str], Awaitable[str]],
    now_ms: Callable[[], int],
    pool: Pool | None = None,
) -> SqlDirectory:
    """Open the directory at an SQLAlchemy URL and bring its tables up to date.

    `hash_password` returns the hash that is stored for a password; `now_ms` returns Unix milliseconds.
    `pool`: of connections to a server.

    Raises:
        StoreError: the database cannot be opened, or a newer version of this program wrote it.
    """
    return SqlDirectory(await open_database(url, pool or Pool()), hash_password, now_ms)
