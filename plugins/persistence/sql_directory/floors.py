"""Floors, from which on readers may read: lowered when the message store was exchanged."""

from collections.abc import Mapping

from sqlalchemy import Column, Connection, Table, bindparam, update

from broker.ports import DirectoryChange
from plugins.persistence.sql_directory.database import SqlPart
from plugins.persistence.sql_directory.models import GROUPS, MEMBERSHIPS, USERS


class SqlFloors(SqlPart):
    """See `broker.ports.Floors`."""

    async def lower_floors(self, groups: Mapping[str, int], inboxes: Mapping[str, int]) -> None:
        await self._database.write(_lower_floors, groups, inboxes)


def _lower_floors(
    connection: Connection, groups: Mapping[str, int], inboxes: Mapping[str, int]
) -> list[DirectoryChange]:
    _lower(connection, GROUPS, GROUPS.c.group_id, GROUPS.c.floor, groups)
    _lower(connection, MEMBERSHIPS, MEMBERSHIPS.c.group_id, MEMBERSHIPS.c.joined_seq, groups)
    _lower(connection, USERS, USERS.c.user_id, USERS.c.inbox_floor, inboxes)
    return []


def _lower(
    connection: Connection, table: Table, key: Column[str], floor: Column[int], heads: Mapping[str, int]
) -> None:
    if heads:
        lowered = update(table).where(key == bindparam("log"), floor > bindparam("head"))
        values = [{"log": log, "head": head} for log, head in heads.items()]
        connection.execute(lowered.values({floor: bindparam("head")}), values)
