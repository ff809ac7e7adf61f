"""Checks and copies of a directory that is an SQLite file. One on a database server has its own tools."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from plugins.persistence.sql_directory.database import SqlPart
from plugins.persistence.sqlite_files import check_table, connect, copy_database, tables


class SqlUpkeep(SqlPart):
    """See `broker.ports.DirectoryUpkeep`."""

    async def check(self) -> list[str]:
        file = self._database.file
        return [] if file is None else await asyncio.to_thread(_check, file)

    async def copy(self, folder: Path) -> bool:
        file = self._database.file
        if file is None:
            return False
        await copy_database(file, folder / "directory.db")
        return True


def _check(file: Path) -> list[str]:
    found = []
    try:
        with closing(connect(file)) as connection:
            for table in tables(connection):
                found += [f"table {table}: {line}" for line in check_table(connection, table)]
    except sqlite3.Error as error:
        found.append(f"cannot be read: {error}")
    return found
