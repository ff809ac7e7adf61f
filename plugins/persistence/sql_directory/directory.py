"""The directory: accounts, contacts and groups in SQL. What is said to the database is in
`accounts`, `contacts` and `groups`; here is who says it, and when."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from broker.domain.errors import StoreError
from broker.ports import (
    Account,
    Ban,
    Contact,
    DirectoryChange,
    Group,
    GroupWrite,
    JoinRequest,
    Membership,
    Notice,
    Profile,
)
from plugins.persistence.sql_directory import accounts, groups, notices
from plugins.persistence.sql_directory import contacts as relations
from plugins.persistence.sql_directory.migrate import migrate
from plugins.persistence.sql_directory.models import BANS, JOIN_REQUESTS, MEMBERSHIPS

T = TypeVar("T")
Args = TypeVarTuple("Args")


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

    async def _in_thread(self, job: Callable[[*Args], T], *args: *Args) -> T:
        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._thread, job, *args)
        except RuntimeError as error:  # the thread was shut down
            raise StoreError("directory: it is closed") from error
        return await waiting

    async def _read(self, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
        """Run `job` in a transaction on the directory's thread."""
        return await self._in_thread(_transaction, self._engine, job, *args)

    async def _write(
        self, job: Callable[[Connection, *Args], Sequence[DirectoryChange]], *args: *Args
    ) -> None:
        """Run `job` in a transaction and tell what it has changed; also if the caller is cancelled
        meanwhile, as what is committed is committed."""
        await asyncio.shield(asyncio.ensure_future(self._commit(job, *args)))

    async def _commit(
        self, job: Callable[[Connection, *Args], Sequence[DirectoryChange]], *args: *Args
    ) -> None:
        for change in await self._in_thread(_transaction, _writing(self._engine), job, *args):
            for listener in self._listeners:
                listener(change)

    def _now(self) -> int:
        return self._now_ms() // 1000

    # --- accounts --------------------------------------------------------------------

    async def account(self, user_id: str) -> Account | None:
        return await self._read(accounts.account, user_id)

    async def accounts(self, after: str, limit: int) -> list[Account]:
        return await self._read(accounts.accounts, after, limit)

    async def add_account(
        self, user_id: str, password: str | None, role: str, inbox_floor: int = 0
    ) -> Account:
        """Tokens issued before are another's, who had the id."""
        hashed = None if password is None else await self._hash_password(password)
        account = Account(user_id, role, False, hashed, self._now_ms(), inbox_floor, self._now())
        await self._write(accounts.add, account)
        return account

    async def set_password(self, user_id: str, password: str) -> None:
        """Tokens of the second of the change are not accepted either: who knows the old password may
        have got one just before. Who issues one just after waits for the next second."""
        hashed = await self._hash_password(password)
        await self._write(accounts.change, user_id, {"password_hash": hashed}, self._now() + 1)

    async def set_disabled(self, user_id: str, disabled: bool) -> None:
        await self._write(accounts.change, user_id, {"disabled": disabled}, 0)

    async def remove_account(
        self, user_id: str, groups: Sequence[str] | None = None, notices: Sequence[Notice] = ()
    ) -> None:
        await self._write(accounts.remove, user_id, groups, notices)

    async def profiles(self, user_ids: Sequence[str]) -> dict[str, Profile]:
        return await self._read(accounts.profiles, user_ids)

    async def write_profile(self, profile: Profile) -> None:
        await self._write(accounts.write_profile, profile)

    async def revoke_token(self, user_id: str, token_id: str, expires_at: int) -> None:
        await self._write(accounts.revoke_token, user_id, token_id, expires_at, self._now())

    async def is_revoked(self, token_id: str) -> bool:
        return await self._read(accounts.is_revoked, token_id)

    async def revoke_tokens(self, user_id: str, before: int) -> None:
        """What was revoked by a later `before` stays revoked."""
        await self._write(accounts.change, user_id, {}, before)

    # --- contacts --------------------------------------------------------------------

    async def contacts_between(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Contact]:
        return await self._read(relations.between, pairs)

    async def contacts(self, user_id: str, after: str, limit: int) -> list[Contact]:
        return await self._read(relations.page, user_id, after, limit)

    async def write_contacts(self, contacts: Sequence[Contact], notices: Sequence[Notice]) -> None:
        await self._write(relations.write, contacts, notices)

    # --- groups ----------------------------------------------------------------------

    async def membership(self, group_id: str, user_id: str) -> Membership | None:
        return (await self.members_by_id(group_id, [user_id])).get(user_id)

    async def memberships(self, user_id: str) -> list[Membership]:
        return await self._read(groups.memberships, user_id)

    async def group(self, group_id: str) -> Group | None:
        return await self._read(groups.group, group_id)

    async def groups(self, after: str, limit: int) -> list[Group]:
        return await self._read(groups.groups, after, limit)

    async def groups_by_id(self, group_ids: Sequence[str]) -> dict[str, Group]:
        return await self._read(groups.groups_by_id, group_ids)

    async def members(self, group_id: str, after: str, limit: int) -> list[Membership]:
        return await self._read(groups.places, MEMBERSHIPS, Membership, group_id, after, limit)

    async def members_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Membership]:
        return await self._read(groups.places_by_id, MEMBERSHIPS, Membership, group_id, user_ids)

    async def admins(self, group_id: str) -> list[Membership]:
        return await self._read(groups.admins, group_id)

    async def ban(self, group_id: str, user_id: str) -> Ban | None:
        return (await self.bans_by_id(group_id, [user_id])).get(user_id)

    async def bans_by_id(self, group_id: str, user_ids: Sequence[str]) -> dict[str, Ban]:
        return await self._read(groups.places_by_id, BANS, Ban, group_id, user_ids)

    async def bans(self, group_id: str, after: str, limit: int) -> list[Ban]:
        return await self._read(groups.places, BANS, Ban, group_id, after, limit)

    async def join_request(self, group_id: str, user_id: str) -> JoinRequest | None:
        found = await self._read(groups.places_by_id, JOIN_REQUESTS, JoinRequest, group_id, [user_id])
        return found.get(user_id)

    async def join_requests(self, group_id: str, after: str, limit: int) -> list[JoinRequest]:
        return await self._read(groups.places, JOIN_REQUESTS, JoinRequest, group_id, after, limit)

    async def write_group(self, write: GroupWrite, notices: Sequence[Notice]) -> None:
        await self._write(groups.write, write, notices)

    # --- notices ---------------------------------------------------------------------

    async def notices(self, limit: int) -> list[Notice]:
        return await self._read(notices.notices, limit)

    async def drop_notices(self, ids: Sequence[str]) -> None:
        await self._write(notices.drop_notices, ids)


def _transaction(engine: Engine, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
    try:
        with engine.begin() as connection:
            return job(connection, *args)
    except (SQLAlchemyError, OverflowError, UnicodeError) as error:
        raise StoreError(f"directory: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What the driver said, without the statement and what was written."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


# --- opening --------------------------------------------------------------------------


def open_directory(
    url: str, hash_password: Callable[[str], Awaitable[str]], now_ms: Callable[[], int]
) -> SqlDirectory:
    """Open the database at an SQLAlchemy URL and bring its tables up to date.

    Raises:
        StoreError: the database cannot be opened, or is newer than this program.
    """
    try:
        engine = create_engine(url)
    except (SQLAlchemyError, ImportError) as error:  # no URL, or its driver is not installed
        raise StoreError(f"directory: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _durable)
        event.listen(engine, "begin", _begin)
    try:
        with _writing(engine).begin() as connection:
            migrate(connection)
    except (SQLAlchemyError, StoreError) as error:
        engine.dispose()
        raise StoreError(f"directory {engine.url.render_as_string()}: {_reason(error)}") from error
    return SqlDirectory(engine, hash_password, now_ms)


def _writing(engine: Engine) -> Engine:
    """The same engine, for transactions that write."""
    return engine.execution_options(writing=True)


def _durable(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin` says, not at the first write
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA busy_timeout = 5000")


def _begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
