"""The directory: accounts, contacts, groups and notices in SQL, each in the module of its name."""

from collections.abc import Awaitable, Callable

from broker.ports import DirectoryChange
from plugins.persistence.sql_directory.accounts import SqlAccounts
from plugins.persistence.sql_directory.contacts import SqlContacts
from plugins.persistence.sql_directory.database import open_database
from plugins.persistence.sql_directory.groups import SqlGroups
from plugins.persistence.sql_directory.notices import SqlNotices


class SqlDirectory(SqlAccounts, SqlContacts, SqlGroups, SqlNotices):
    """See `broker.ports.Directory`."""

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        self._database.on_change(callback)

    async def close(self) -> None:
        """Finish what was given, then let go of the database."""
        await self._database.close()


def open_directory(
    url: str, hash_password: Callable[[str], Awaitable[str]], now_ms: Callable[[], int]
) -> SqlDirectory:
    """Open the database at an SQLAlchemy URL and bring its tables up to date.

    Raises:
        StoreError: the database cannot be opened, or is newer than this program.
    """
    return SqlDirectory(open_database(url), hash_password, now_ms)
