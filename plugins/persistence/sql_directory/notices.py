"""Notices: the port's methods, then the statements they run in a transaction."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, select

from broker.ports import DirectoryChange, Notice
from plugins.persistence.sql_directory.database import SqlPart
from plugins.persistence.sql_directory.models import NOTICES, columns
from plugins.persistence.sql_directory.statements import chunks


class SqlNotices(SqlPart):
    """See `broker.ports.PendingNotices`."""

    async def notices(self, limit: int) -> list[Notice]:
        return await self._database.read(_select_notices, limit)

    async def drop_notices(self, ids: Sequence[str]) -> None:
        await self._database.write(_delete_notices, ids)


def add_notices(connection: Connection, notices: Sequence[Notice]) -> None:
    """Add the notices of a change, in the transaction of that change."""
    if notices:
        connection.execute(NOTICES.insert(), [msgspec.structs.asdict(notice) for notice in notices])


def _select_notices(connection: Connection, limit: int) -> list[Notice]:
    query = select(*columns(NOTICES, Notice.__struct_fields__)).order_by(NOTICES.c.place).limit(limit)
    return [Notice(*row) for row in connection.execute(query)]


def _delete_notices(connection: Connection, ids: Sequence[str]) -> list[DirectoryChange]:
    for chunk in chunks(ids):
        connection.execute(delete(NOTICES).where(NOTICES.c.id.in_(chunk)))
    return []
