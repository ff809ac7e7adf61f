"""The database: its engine, transactions on it, and who hears of changes."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from broker.domain.errors import StoreError
from broker.ports import DirectoryChange
from plugins.persistence.sql_directory.migrate import migrate

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Database:
    """One thread speaks to the database, so that the event loop never waits."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
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

    async def read(self, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
        """Run `job` in a transaction on the directory's thread."""
        return await self._in_thread(_transaction, self._engine, job, *args)

    async def write(
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


def _transaction(engine: Engine, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
    try:
        with engine.begin() as connection:
            return job(connection, *args)
    except (SQLAlchemyError, OverflowError, UnicodeError) as error:
        raise StoreError(f"directory: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What the driver said, without the statement and what was written."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


class SqlPart:
    """A part of the directory, on the database that all of them share."""

    def __init__(self, database: Database) -> None:
        self._database = database


# --- opening --------------------------------------------------------------------------


def open_database(url: str) -> Database:
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
    return Database(engine)


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
