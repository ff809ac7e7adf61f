"""The ids that users and groups have or had. Ids that differ in case only are one id here.

A row is never deleted: the id of an account that was removed stays used. Data of an earlier version may have
ids that differ in case only. One of them is in `used_ids`, the others are in `id_twins` while they exist.
"""

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update

from broker.ports import DirectoryError, IdTwin
from plugins.persistence.sql_directory.database import SqlPart
from plugins.persistence.sql_directory.models import ID_TWINS, USED_IDS, USERS
from plugins.persistence.sql_directory.statements import insert_new

USER, GROUP = "user", "group"


class SqlUsedIds(SqlPart):
    """See `broker.ports.AccountDirectory` and `GroupDirectory`."""

    async def check_new_id(self, user_id: str, *, reuse: bool) -> None:
        await self._database.read(_check_user, user_id, reuse)

    async def same_group(self, group_id: str) -> str | None:
        return await self._database.read(_select_same_group, group_id)

    async def id_twins(self, limit: int) -> tuple[list[IdTwin], int]:
        return await self._database.read(_select_twins, limit)


def use_user_id(connection: Connection, user_id: str, *, reuse: bool) -> None:
    """Give an id to a new account. Refused (`exists`) as described at `check_new_id`."""
    if _check_user(connection, user_id, reuse):
        which = _is(USED_IDS, USER, user_id)
        connection.execute(update(USED_IDS).where(which).values(id=user_id))
    else:
        _insert(connection, USER, user_id)


def use_group_id(connection: Connection, group_id: str) -> None:
    """Give an id to a new group. Refused (`exists`) if a group has it or had it, in whatever case."""
    _insert(connection, GROUP, group_id)


def user_is_gone(connection: Connection, user_id: str) -> None:
    """An account was removed. If its id has a twin, the twin is in `used_ids` from now on."""
    # Twins may be removed at the same time.
    connection.scalar(select(USED_IDS.c.id).where(_is(USED_IDS, USER, user_id)).with_for_update())
    here = (ID_TWINS.c.kind == USER) & (ID_TWINS.c.id == user_id)
    if connection.execute(delete(ID_TWINS).where(here)).rowcount:
        return
    twin = connection.scalar(select(ID_TWINS.c.id).where(_is(ID_TWINS, USER, user_id)).limit(1))
    if twin is not None:
        connection.execute(update(USED_IDS).where(_is(USED_IDS, USER, user_id)).values(id=twin))
        connection.execute(delete(ID_TWINS).where(ID_TWINS.c.kind == USER, ID_TWINS.c.id == twin))


def _check_user(connection: Connection, user_id: str, reuse: bool) -> bool:
    """Refuse unless the id may be given to a new account. Returns whether it was used before."""
    # Locked, where a database has locks of rows, so that no other process decides the same meanwhile.
    last = connection.scalar(select(USED_IDS.c.id).where(_is(USED_IDS, USER, user_id)).with_for_update())
    if last is None:
        return False
    twins = connection.scalars(select(ID_TWINS.c.id).where(_is(ID_TWINS, USER, user_id)))
    living = select(USERS.c.user_id).where(USERS.c.user_id.in_([last, *twins]))
    users = connection.scalars(living).all()
    if user_id in users:
        raise DirectoryError("exists", f"user {user_id} exists already")
    if users:
        raise DirectoryError("exists", f"user {user_id}: an id that differs in case only exists already")
    if not reuse:
        raise id_used(user_id)
    return True


def id_used(user_id: str) -> DirectoryError:
    """The refusal of an id that a removed account had."""
    return DirectoryError(
        "exists", f"user {user_id}: an earlier account had this id; only an administrator can give it again"
    )


def _insert(connection: Connection, kind: str, name: str) -> None:
    row = {"kind": kind, "folded": name.lower(), "id": name}
    detail = f"{kind} {name}: this id, or one that differs in case only, exists already"
    insert_new(connection, USED_IDS, row, "exists", detail)


def _is(table: Table, kind: str, name: str) -> ColumnElement[bool]:
    return (table.c.kind == kind) & (table.c.folded == name.lower())


def _select_same_group(connection: Connection, group_id: str) -> str | None:
    return connection.scalar(select(USED_IDS.c.id).where(_is(USED_IDS, GROUP, group_id)))


def _select_twins(connection: Connection, limit: int) -> tuple[list[IdTwin], int]:
    same = (USED_IDS.c.kind == ID_TWINS.c.kind) & (USED_IDS.c.folded == ID_TWINS.c.folded)
    query = select(ID_TWINS.c.kind, ID_TWINS.c.id, USED_IDS.c.id).join(USED_IDS, same)
    rows = connection.execute(query.order_by(ID_TWINS.c.kind, ID_TWINS.c.id).limit(limit)).all()
    total = connection.scalar(select(func.count()).select_from(ID_TWINS)) or 0
    return [IdTwin(*row) for row in rows], total
