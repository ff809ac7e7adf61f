"""The identity of the store, in a table of one row."""

import sqlite3

from broker.ports import StoreIdentity
from plugins.persistence.sqlite.database import Database


class SqliteIdentity:
    """See `broker.ports.Identified`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store_identity(self) -> StoreIdentity | None:
        return await self._database.read(read_identity)

    async def set_store_identity(self, identity: StoreIdentity) -> None:
        await self._database.write(lambda connection: write_identity(connection, identity))


def read_identity(connection: sqlite3.Connection) -> StoreIdentity | None:
    """The identity in a database of this version's schema."""
    row = connection.execute("SELECT id, generation FROM store_identity").fetchone()
    return None if row is None else StoreIdentity(*row)


def write_identity(connection: sqlite3.Connection, identity: StoreIdentity) -> None:
    """Replace the identity, in the transaction of the caller."""
    connection.execute("DELETE FROM store_identity")
    connection.execute("INSERT INTO store_identity VALUES (?, ?)", (identity.id, identity.generation))
