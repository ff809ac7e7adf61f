"""The directory: accounts, groups and memberships in SQL."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import Engine, event, func
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import Session, SQLModel, col, create_engine, delete, select

from broker.domain.errors import StoreError
from broker.ports import (
    Account,
    AccountChanged,
    DirectoryChange,
    DirectoryError,
    Group,
    Membership,
    MembershipChanged,
)
from plugins.persistence.sql_directory.models import GroupRow, MembershipRow, UserRow

T = TypeVar("T")


class SqlDirectory:
    """See `broker.ports.Directory`. One thread speaks to the database, so that the event loop
    never waits; `hash_password` turns a password into what is stored of it."""

    def __init__(
        self, engine: Engine, hash_password: Callable[[str], Awaitable[str]], now_ms: Callable[[], int]
    ) -> None:
        self._engine = engine
        self._hash_password = hash_password
        self._now_ms = now_ms
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="directory")
        self._listeners: list[Callable[[DirectoryChange], None]] = []

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        self._listeners.append(callback)

    async def close(self) -> None:
        """Finish what was given, then let go of the database."""
        await self._in_thread(self._engine.dispose)
        self._thread.shutdown()

    async def _in_thread(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def _run(self, job: Callable[[Session], T]) -> T:
        """Run `job` in a transaction on the directory's thread."""

        def transaction() -> T:
            try:
                with Session(self._engine) as session:
                    result = job(session)
                    session.commit()
                    return result
            except IntegrityError:
                raise
            except DBAPIError as error:
                raise StoreError(f"directory: {error.orig}") from error

        return await self._in_thread(transaction)

    def _tell(self, *changes: DirectoryChange) -> None:
        for change in changes:
            for listener in self._listeners:
                listener(change)

    # --- accounts --------------------------------------------------------------------

    async def account(self, user_id: str) -> Account | None:
        def job(session: Session) -> Account | None:
            row = session.get(UserRow, user_id)
            return None if row is None else _account(row)

        return await self._run(job)

    async def accounts(self, after: str, limit: int) -> list[Account]:
        query = select(UserRow).where(UserRow.user_id > after).order_by(UserRow.user_id).limit(limit)
        return await self._run(lambda session: [_account(row) for row in session.exec(query)])

    async def add_account(
        self, user_id: str, password: str | None, role: str, inbox_floor: int = 0
    ) -> Account:
        hashed = None if password is None else await self._hash_password(password)
        row = UserRow(
            user_id=user_id,
            password_hash=hashed,
            role=role,
            created_at=self._now_ms(),
            inbox_floor=inbox_floor,
        )

        def job(session: Session) -> Account:
            if session.get(UserRow, user_id) is not None:
                raise DirectoryError("exists", f"user {user_id} exists already")
            session.add(row)
            return _account(row)

        account = await self._run(job)
        self._tell(AccountChanged(user_id, account))
        return account

    async def set_password(self, user_id: str, password: str) -> None:
        hashed = await self._hash_password(password)
        await self._change_account(user_id, password_hash=hashed)

    async def set_disabled(self, user_id: str, disabled: bool) -> None:
        await self._change_account(user_id, disabled=disabled)

    async def _change_account(self, user_id: str, **values: Any) -> None:
        def job(session: Session) -> Account:
            row = _need(session.get(UserRow, user_id), "user", user_id)
            for name, value in values.items():
                setattr(row, name, value)
            return _account(row)

        self._tell(AccountChanged(user_id, await self._run(job)))

    async def remove_account(self, user_id: str) -> None:
        def job(session: Session) -> list[str]:
            row = _need(session.get(UserRow, user_id), "user", user_id)
            owned = session.exec(select(GroupRow.group_id).where(GroupRow.owner == user_id)).first()
            if owned is not None:
                raise DirectoryError("is_owner", f"{user_id} owns group {owned}: dismiss it first")
            session.delete(row)
            groups = list(
                session.exec(select(MembershipRow.group_id).where(MembershipRow.user_id == user_id))
            )
            session.exec(delete(MembershipRow).where(col(MembershipRow.user_id) == user_id))
            return groups

        groups = await self._run(job)
        left = [MembershipChanged(group, user_id, False) for group in groups]
        self._tell(AccountChanged(user_id, None), *left)

    # --- groups ----------------------------------------------------------------------

    async def membership(self, group_id: str, user_id: str) -> Membership | None:
        def job(session: Session) -> Membership | None:
            row = session.get(MembershipRow, (group_id, user_id))
            return None if row is None else _membership(row)

        return await self._run(job)

    async def memberships(self, user_id: str) -> list[Membership]:
        query = select(MembershipRow).where(MembershipRow.user_id == user_id).order_by(MembershipRow.group_id)
        return await self._run(lambda session: [_membership(row) for row in session.exec(query)])

    async def group(self, group_id: str) -> Group | None:
        def job(session: Session) -> Group | None:
            row = session.get(GroupRow, group_id)
            if row is None:
                return None
            count = select(func.count()).where(col(MembershipRow.group_id) == group_id)
            return _group(row, session.exec(count).one())

        return await self._run(job)

    async def groups(self, after: str, limit: int) -> list[Group]:
        members = (
            select(func.count())
            .where(col(MembershipRow.group_id) == col(GroupRow.group_id))
            .scalar_subquery()
        )
        query = (
            select(GroupRow, members)
            .where(GroupRow.group_id > after)
            .order_by(GroupRow.group_id)
            .limit(limit)
        )
        return await self._run(lambda session: [_group(row, count) for row, count in session.exec(query)])

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        query = (
            select(MembershipRow)
            .where(MembershipRow.group_id == group_id, MembershipRow.user_id > after)
            .order_by(MembershipRow.user_id)
            .limit(limit)
        )
        return await self._run(lambda session: [_membership(row) for row in session.exec(query)])

    async def create_group(
        self, group_id: str, name: str, owner: str, members: Sequence[str], joined_seq: int
    ) -> Group:
        users = list(dict.fromkeys((owner, *members)))
        row = GroupRow(group_id=group_id, name=name, owner=owner, created_at=self._now_ms())

        def job(session: Session) -> Group:
            if session.get(GroupRow, group_id) is not None:
                raise DirectoryError("exists", f"group {group_id} exists already")
            _need_users(session, users)
            session.add(row)
            for user in users:
                role = "owner" if user == owner else "member"
                session.add(MembershipRow(group_id=group_id, user_id=user, role=role, joined_seq=joined_seq))
            return _group(row, len(users))

        group = await self._run(job)
        self._tell(*(MembershipChanged(group_id, user, True) for user in users))
        return group

    async def add_members(self, group_id: str, users: Sequence[str], joined_seq: int) -> int:
        def job(session: Session) -> list[str]:
            _need(session.get(GroupRow, group_id), "group", group_id)
            _need_users(session, users)
            added = []
            for user in dict.fromkeys(users):
                if session.get(MembershipRow, (group_id, user)) is None:
                    session.add(MembershipRow(group_id=group_id, user_id=user, joined_seq=joined_seq))
                    added.append(user)
            return added

        added = await self._run(job)
        self._tell(*(MembershipChanged(group_id, user, True) for user in added))
        return len(added)

    async def remove_members(self, group_id: str, users: Sequence[str]) -> int:
        def job(session: Session) -> list[str]:
            group = _need(session.get(GroupRow, group_id), "group", group_id)
            removed = []
            for user in dict.fromkeys(users):
                if user == group.owner:
                    raise DirectoryError("is_owner", f"{user} owns group {group_id}: dismiss it instead")
                row = session.get(MembershipRow, (group_id, user))
                if row is not None:
                    session.delete(row)
                    removed.append(user)
            return removed

        removed = await self._run(job)
        self._tell(*(MembershipChanged(group_id, user, False) for user in removed))
        return len(removed)

    async def dismiss_group(self, group_id: str) -> None:
        def job(session: Session) -> list[str]:
            session.delete(_need(session.get(GroupRow, group_id), "group", group_id))
            users = list(
                session.exec(select(MembershipRow.user_id).where(MembershipRow.group_id == group_id))
            )
            session.exec(delete(MembershipRow).where(col(MembershipRow.group_id) == group_id))
            return users

        users = await self._run(job)
        self._tell(*(MembershipChanged(group_id, user, False) for user in users))


def _need(row: T | None, kind: str, name: str) -> T:
    if row is None:
        raise DirectoryError("not_found", f"no {kind} {name}")
    return row


def _need_users(session: Session, users: Sequence[str]) -> None:
    for user in users:
        _need(session.get(UserRow, user), "user", user)


def _account(row: UserRow) -> Account:
    return Account(row.user_id, row.role, row.disabled, row.password_hash, row.created_at, row.inbox_floor)


def _membership(row: MembershipRow) -> Membership:
    return Membership(row.group_id, row.user_id, row.role, row.joined_seq, row.muted_until)


def _group(row: GroupRow, members: int) -> Group:
    return Group(row.group_id, row.name, row.owner, row.created_at, members)


def open_directory(
    url: str, hash_password: Callable[[str], Awaitable[str]], now_ms: Callable[[], int]
) -> SqlDirectory:
    """Open the database at an SQLAlchemy URL and create the tables it lacks.

    Raises:
        StoreError: the database cannot be opened.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _durable)
    try:
        SQLModel.metadata.create_all(engine)
    except DBAPIError as error:
        raise StoreError(f"directory {engine.url.render_as_string()}: {error.orig}") from error
    return SqlDirectory(engine, hash_password, now_ms)


def _durable(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA busy_timeout = 5000")
