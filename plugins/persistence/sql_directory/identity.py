"""The identity of the directory: the port's methods, then their statements."""

from sqlalchemy import Connection, delete, insert, select

from broker.ports import DirectoryChange, StoreIdentity
from plugins.persistence.sql_directory.database import SqlPart
from plugins.persistence.sql_directory.migrate import VERSION
from plugins.persistence.sql_directory.models import STORE_IDENTITY, columns


class SqlIdentity(SqlPart):
    """See `broker.ports.Identified`."""

    async def store_identity(self) -> StoreIdentity | None:
        return await self._database.read(read_identity)

    async def set_store_identity(self, identity: StoreIdentity) -> None:
        await self._database.write(write_identity, identity)


def read_identity(connection: Connection) -> StoreIdentity | None:
    """The identity in a database of this version's tables."""
    row = connection.execute(select(*columns(STORE_IDENTITY, StoreIdentity.__struct_fields__))).first()
    return None if row is None else StoreIdentity(*row)


def write_identity(connection: Connection, identity: StoreIdentity) -> list[DirectoryChange]:
    """Replace the identity, in the transaction of the caller."""
    # There may be no row of it to lock, and two nodes that are new must not leave two.
    connection.execute(select(VERSION).with_for_update())
    connection.execute(delete(STORE_IDENTITY))
    connection.execute(insert(STORE_IDENTITY).values(id=identity.id, generation=identity.generation))
    return []
