"""The database under the directory: how it is opened, how a job runs on it, who is told of changes.

A job is a plain function. It gets a connection, runs its statements on it, and knows nothing of threads or of
the event loop. `Database._run` is the only place that gives a job its connection.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from broker.domain.errors import StoreError, StoreUnavailableError
from broker.ports import DirectoryChange
from plugins.persistence.open_files import OpenFiles, may_pass
from plugins.persistence.sql_directory.migrate import migrate
from plugins.persistence.sqlite_files import make_private
from plugins.persistence.threads import FairThread

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Database:
    """Runs jobs in transactions and tells the listeners what the jobs have changed.

    All jobs run on one thread, which serves users in turns. So the event loop never waits for the database,
    and listeners are told of changes in the order in which they were committed.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = FairThread("directory")
        self._listeners: list[Callable[[DirectoryChange], None]] = []
        self._files = OpenFiles(*([] if self.file is None else [self.file]))

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database; None for any other."""
        url = self._engine.url
        if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
            return None
        return Path(url.database)

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        """See `broker.ports.Directory`."""
        self._listeners.append(callback)

    async def read(self, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
        """Run a job that changes nothing. Returns what it returns.

        Raises:
            StoreError: the database failed or is closed.
        """
        return await self._run(self._engine, job, *args)

    async def write(
        self, job: Callable[[Connection, *Args], Sequence[DirectoryChange]], *args: *Args
    ) -> None:
        """Run a job that returns its changes, then tell the listeners. Listeners are told even if the
        caller is cancelled meanwhile, because the transaction is committed all the same.

        Raises:
            DirectoryError: the job refuses the change. Nothing is written.
            StoreError: the database failed, is closed, or its file was removed.
        """
        self._files.check()  # before: if the file is put back, a change that was refused must not be in it
        await asyncio.shield(asyncio.ensure_future(self._commit(job, *args)))

    async def _commit(
        self, job: Callable[[Connection, *Args], Sequence[DirectoryChange]], *args: *Args
    ) -> None:
        changes = await self._run(_writing(self._engine), job, *args)
        self._files.check()
        for change in changes:
            for listener in self._listeners:
                listener(change)

    async def _run(self, engine: Engine, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
        """Run a job on a connection of the engine, in a transaction of its own."""
        try:
            waiting = self._thread.submit(_transaction, engine, job, *args)
        except RuntimeError as error:  # the thread was shut down
            raise StoreError("directory: it is closed") from error
        return await asyncio.wrap_future(waiting)

    async def close(self) -> None:
        """Finish the jobs that were given, then close the connections and end the thread."""
        await asyncio.wrap_future(self._thread.submit_last(self._engine.dispose))
        self._thread.shutdown()


def _transaction(engine: Engine, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
    try:
        with engine.begin() as connection:
            return job(connection, *args)
    # A driver raises the last two itself for an integer or a text that it cannot store.
    except (SQLAlchemyError, OverflowError, UnicodeError) as error:
        passing = may_pass(error.orig) if isinstance(error, DBAPIError) else False
        kind = StoreUnavailableError if passing else StoreError
        raise kind(f"directory: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The driver's message. Without the statement and its values, which can be personal data."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


class SqlPart:
    """A part of the directory. All parts share one database."""

    def __init__(self, database: Database) -> None:
        self._database = database


# --- opening --------------------------------------------------------------------------


def open_database(url: str) -> Database:
    """Open the database at an SQLAlchemy URL and bring its tables up to date.

    Raises:
        StoreError: the database cannot be opened, or a newer version of this program wrote it.
    """
    try:
        engine = create_engine(url)
    except (SQLAlchemyError, ImportError) as error:  # not a URL, or its driver is not installed
        raise StoreError(f"directory: {error}") from error
    if engine.dialect.name == "sqlite":
        if engine.url.database and not engine.url.database.startswith(("file:", ":memory:")):
            make_private(Path(engine.url.database))
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
    """The same engine and pool, for transactions that write. `_begin` reads the option."""
    return engine.execution_options(writing=True)


def _durable(connection: Any, _record: object) -> None:
    # The driver would begin a transaction only at the first write. `_begin` does it at the start.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA busy_timeout = 5000")


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later fails if another process has written in between.
    # IMMEDIATE takes the write lock at once and waits for it instead.
    writing = connection.get_execution_options().get("writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
