"""The directory's database in a SQLite file."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from broker.domain.errors import StoreError, StoreUnavailableError
from broker.ports import DirectoryChange
from plugins.persistence.open_files import OpenFiles, may_pass
from plugins.persistence.sql_directory.database import Database, reason
from plugins.persistence.sql_directory.migrate import migrate
from plugins.persistence.sqlite_files import make_private
from plugins.persistence.threads import FairThread

T = TypeVar("T")
Args = TypeVarTuple("Args")


class FileDatabase(Database):
    """All jobs run on one thread, which serves users in turns. So the event loop never waits for the
    database, and listeners are told of changes in the order in which they were committed.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._thread = FairThread("directory")
        self._files = OpenFiles(*([] if self.file is None else [self.file]))

    @property
    def file(self) -> Path | None:
        name = self._engine.url.database
        return None if not name or name == ":memory:" else Path(name)

    async def look(self) -> None:
        """No other node uses the file."""

    async def read(self, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
        return await self._run(self._engine, job, *args)

    async def write(
        self, job: Callable[[Connection, *Args], Sequence[DirectoryChange]], *args: *Args
    ) -> None:
        """See `Database`. Fails, too, if the file was removed."""
        self._files.check()  # before: if the file is put back, a change that was refused must not be in it
        await asyncio.shield(asyncio.ensure_future(self._commit(job, *args)))

    async def _commit(
        self, job: Callable[[Connection, *Args], Sequence[DirectoryChange]], *args: *Args
    ) -> None:
        changes = await self._run(_writing(self._engine), job, *args)
        self._files.check()
        self._tell(changes)

    async def _run(self, engine: Engine, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
        """Run a job on a connection of the engine, in a transaction of its own."""
        try:
            waiting = self._thread.submit(_transaction, engine, job, *args)
        except RuntimeError as error:  # the thread was shut down
            raise StoreError("directory: it is closed") from error
        return await asyncio.wrap_future(waiting)

    async def close(self) -> None:
        """See `Database`. Ends the thread, too."""
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
        raise kind(f"directory: {reason(error)}") from error


# --- opening --------------------------------------------------------------------------


def open_file(url: URL) -> FileDatabase:
    """Open the database in a SQLite file, and bring its tables up to date.

    Raises:
        StoreError: it cannot be opened, or a newer version of this program wrote it.
    """
    engine = create_engine(url)
    if url.database and not url.database.startswith(("file:", ":memory:")):
        make_private(Path(url.database))
    event.listen(engine, "connect", _durable)
    event.listen(engine, "begin", _begin)
    try:
        with _writing(engine).begin() as connection:
            migrate(connection)
    except (SQLAlchemyError, StoreError) as error:
        engine.dispose()
        raise StoreError(f"directory {url.render_as_string()}: {reason(error)}") from error
    return FileDatabase(engine)


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
