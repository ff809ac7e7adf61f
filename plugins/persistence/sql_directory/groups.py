"""Groups, their members, bans and join requests: the port's methods, then the statements they run in a
transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Table, delete, func, select, update

from broker.ports import (
    Ban,
    DirectoryChange,
    DirectoryError,
    Group,
    GroupChanged,
    GroupWrite,
    JoinRequest,
    Membership,
    MembershipChanged,
    Notice,
)
from plugins.persistence.sql_directory.database import SqlPart
from plugins.persistence.sql_directory.models import (
    BANS,
    DEPARTURES,
    GROUPS,
    JOIN_REQUESTS,
    MEMBERSHIPS,
    DepartureRow,
    columns,
)
from plugins.persistence.sql_directory.notices import add_notices
from plugins.persistence.sql_directory.statements import chunks, insert_new, need_users
from plugins.persistence.sql_directory.used_ids import use_group_id

Row = TypeVar("Row", Membership, Ban, JoinRequest)

_STORED = [field for field in Group.__struct_fields__ if field != "members"]
_MEMBERS = select(func.count()).where(MEMBERSHIPS.c.group_id == GROUPS.c.group_id).scalar_subquery()
_GROUPS = select(_MEMBERS, *columns(GROUPS, _STORED))


class SqlGroups(SqlPart):
    """See `broker.ports.GroupDirectory`."""

    async def membership(self, group_id: str, user_id: str) -> Membership | None:
        return (await self.members_by_id(group_id, [user_id])).get(user_id)

    async def memberships(self, user_id: str) -> list[Membership]:
        return await self._database.read(_select_memberships, user_id)

    async def group(self, group_id: str) -> Group | None:
        return await self._database.read(_select_group, group_id)

    async def groups(self, after: str, limit: int) -> list[Group]:
        return await self._database.read(_select_groups, after, limit)

    async def groups_by_id(self, group_ids: Sequence[str]) -> dict[str, Group]:
        return await self._database.read(select_groups_by_id, group_ids)

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        return await self._database.read(_select_rows, MEMBERSHIPS, Membership, group_id, after, limit)

    async def members_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Membership]:
        return await self._database.read(_select_rows_by_id, MEMBERSHIPS, Membership, group_id, user_ids)

    async def admins(self, group_id: str) -> list[Membership]:
        return await self._database.read(_select_admins, group_id)

    async def ban(self, group_id: str, user_id: str) -> Ban | None:
        return (await self.bans_by_id(group_id, [user_id])).get(user_id)

    async def bans_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Ban]:
        return await self._database.read(_select_rows_by_id, BANS, Ban, group_id, user_ids)

    async def who_left(self, group_id: str, user_ids: Sequence[str]) -> set[str]:
        return await self._database.read(_select_departed, group_id, user_ids)

    async def kept_mutes(self, group_id: str, user_ids: Sequence[str]) -> dict[str, int]:
        return await self._database.read(_select_mutes, DEPARTURES, group_id, user_ids)

    async def bans(self, group_id: str, after: str, limit: int) -> list[Ban]:
        return await self._database.read(_select_rows, BANS, Ban, group_id, after, limit)

    async def join_request(self, group_id: str, user_id: str) -> JoinRequest | None:
        found = await self._database.read(_select_rows_by_id, JOIN_REQUESTS, JoinRequest, group_id, [user_id])
        return found.get(user_id)

    async def join_requests(self, group_id: str, after: str, limit: int) -> list[JoinRequest]:
        return await self._database.read(_select_rows, JOIN_REQUESTS, JoinRequest, group_id, after, limit)

    async def write_group(self, write: GroupWrite, notices: Sequence[Notice]) -> None:
        await self._database.write(_write_group, write, notices)


def _from_row(members: int, *stored: Any) -> Group:
    return Group(members=members, **dict(zip(_STORED, stored, strict=True)))


def _select_group(connection: Connection, group_id: str) -> Group | None:
    row = connection.execute(_GROUPS.where(GROUPS.c.group_id == group_id)).first()
    return None if row is None else _from_row(*row)


def _select_groups(connection: Connection, after: str, limit: int) -> list[Group]:
    query = _GROUPS.where(GROUPS.c.group_id > after).order_by(GROUPS.c.group_id).limit(limit)
    return [_from_row(*row) for row in connection.execute(query)]


def select_groups_by_id(connection: Connection, group_ids: Sequence[str]) -> dict[str, Group]:
    found = [
        _from_row(*row)
        for chunk in chunks(group_ids)
        for row in connection.execute(_GROUPS.where(GROUPS.c.group_id.in_(chunk)))
    ]
    return {group.group_id: group for group in found}


def _select_memberships(connection: Connection, user_id: str) -> list[Membership]:
    query = select(*columns(MEMBERSHIPS, Membership.__struct_fields__))
    mine = query.where(MEMBERSHIPS.c.user_id == user_id).order_by(MEMBERSHIPS.c.group_id)
    return [Membership(*row) for row in connection.execute(mine)]


def _select_departed(connection: Connection, group_id: str, user_ids: Sequence[str]) -> set[str]:
    query = select(DEPARTURES.c.user_id).where(DEPARTURES.c.group_id == group_id, DEPARTURES.c.by_self)
    return {
        user
        for chunk in chunks(user_ids)
        for user in connection.scalars(query.where(DEPARTURES.c.user_id.in_(chunk)))
    }


def _select_mutes(
    connection: Connection, table: Table, group_id: str, user_ids: Sequence[str]
) -> dict[str, int]:
    """The mutes of those of some users who are muted, as one of the tables has them."""
    query = select(table.c.user_id, table.c.muted_until).where(table.c.group_id == group_id)
    muted = query.where(table.c.muted_until != 0)
    return {
        user: until
        for chunk in chunks(user_ids)
        for user, until in connection.execute(muted.where(table.c.user_id.in_(chunk)))
    }


# --- members, bans and join requests: three tables with one row per group and user --------


def _select_rows_by_id(
    connection: Connection, table: Table, kind: type[Row], group_id: str, user_ids: Sequence[str]
) -> dict[str, Row]:
    query = select(*columns(table, kind.__struct_fields__)).where(table.c.group_id == group_id)
    found = [
        kind(*row)
        for chunk in chunks(user_ids)
        for row in connection.execute(query.where(table.c.user_id.in_(chunk)))
    ]
    return {row.user_id: row for row in found}


def select_members_of(
    connection: Connection, group_id: str, user_ids: Sequence[str]
) -> dict[str, Membership]:
    return _select_rows_by_id(connection, MEMBERSHIPS, Membership, group_id, user_ids)


def _select_rows(
    connection: Connection, table: Table, kind: type[Row], group_id: str, after: str, limit: int
) -> list[Row]:
    query = select(*columns(table, kind.__struct_fields__)).where(table.c.group_id == group_id)
    page = query.where(table.c.user_id > after).order_by(table.c.user_id).limit(limit)
    return [kind(*row) for row in connection.execute(page)]


def _select_admins(connection: Connection, group_id: str) -> list[Membership]:
    query = select(*columns(MEMBERSHIPS, Membership.__struct_fields__))
    ranked = query.where(MEMBERSHIPS.c.group_id == group_id, MEMBERSHIPS.c.role.in_(("owner", "admin")))
    return [Membership(*row) for row in connection.execute(ranked.order_by(MEMBERSHIPS.c.user_id))]


def _put_rows(
    connection: Connection, table: Table, group_id: str, rows: Sequence[Membership | Ban | JoinRequest]
) -> None:
    newest = {row.user_id: msgspec.structs.asdict(row) for row in rows}
    _delete_rows(connection, table, group_id, list(newest))
    if newest:
        connection.execute(table.insert(), list(newest.values()))


def _delete_rows(connection: Connection, table: Table, group_id: str, users: Sequence[str]) -> None:
    for chunk in chunks(users):
        connection.execute(delete(table).where(table.c.group_id == group_id, table.c.user_id.in_(chunk)))


# --- writing --------------------------------------------------------------------------


def _write_group(
    connection: Connection, write: GroupWrite, notices: Sequence[Notice]
) -> list[DirectoryChange]:
    group_id = write.group.group_id
    _write_row(connection, write.group)
    _need_users(connection, write)
    gone = list(write.drop)
    if write.fresh:
        gone = [*_delete_all_rows(connection, group_id), *gone]
    mutes = _select_mutes(connection, MEMBERSHIPS, group_id, write.drop)
    _delete_rows(connection, MEMBERSHIPS, group_id, write.drop)
    _delete_rows(connection, BANS, group_id, write.unban)
    _delete_rows(connection, JOIN_REQUESTS, group_id, write.answered)
    _put_rows(connection, MEMBERSHIPS, group_id, write.put)
    _put_departures(connection, write, mutes)
    _put_rows(connection, BANS, group_id, write.ban)
    _put_rows(connection, JOIN_REQUESTS, group_id, write.ask)
    add_notices(connection, notices)
    counted = select(func.count()).where(MEMBERSHIPS.c.group_id == group_id)
    members = connection.scalar(counted) or 0
    put = dict.fromkeys(row.user_id for row in write.put)
    return [
        GroupChanged(msgspec.structs.replace(write.group, members=members)),
        *(MembershipChanged(group_id, user, True) for user in put),
        *(MembershipChanged(group_id, user, False) for user in dict.fromkeys(gone) if user not in put),
    ]


def _put_departures(connection: Connection, write: GroupWrite, mutes: Mapping[str, int]) -> None:
    """`mutes`: of those who are no longer members."""
    group_id, came = write.group.group_id, [row.user_id for row in write.put]
    # Whoever is muted must not get rid of it by leaving, or by being removed, and coming back.
    gone = dict.fromkeys([*write.left, *(user for user in mutes if user not in set(came))])
    _delete_rows(connection, DEPARTURES, group_id, [*came, *gone])
    rows = [
        DepartureRow(
            group_id=group_id, user_id=user, by_self=user in set(write.left), muted_until=mutes.get(user, 0)
        ).model_dump()
        for user in gone
    ]
    if rows:
        connection.execute(DEPARTURES.insert(), rows)


def _write_row(connection: Connection, group: Group) -> None:
    row = msgspec.structs.asdict(group)
    del row["members"]
    if group.version == 1:
        use_group_id(connection, group.group_id)
        detail = f"group {group.group_id} exists already"
        insert_new(connection, GROUPS, row, "exists", detail)
        return
    before = update(GROUPS).where(GROUPS.c.group_id == group.group_id, GROUPS.c.version == group.version - 1)
    if connection.execute(before.values(row)).rowcount != 1:
        raise DirectoryError("conflict", f"group {group.group_id} has changed meanwhile")


def _need_users(connection: Connection, write: GroupWrite) -> None:
    # A dismissed group keeps the id of its owner, whose account may be gone.
    users = [] if write.group.dismissed_at else [write.group.owner]
    for rows in (write.put, write.ban, write.ask):
        users += [row.user_id for row in rows]
    need_users(connection, users)


def _delete_all_rows(connection: Connection, group_id: str) -> list[str]:
    """Delete the rows that a dismissed group has left; returns the users who were members."""
    query = select(MEMBERSHIPS.c.user_id).where(MEMBERSHIPS.c.group_id == group_id)
    members = list(connection.scalars(query.order_by(MEMBERSHIPS.c.user_id)))
    for table in (MEMBERSHIPS, BANS, JOIN_REQUESTS):
        connection.execute(delete(table).where(table.c.group_id == group_id))
    departed = DEPARTURES.c.group_id == group_id
    connection.execute(delete(DEPARTURES).where(departed, ~DEPARTURES.c.by_self))
    connection.execute(update(DEPARTURES).where(departed).values(muted_until=0))
    return members
