"""One SQLite file with one writer thread and one reader thread.

SQLite releases the GIL while it works, so the event loop keeps running. The writer runs its jobs in the
order they were submitted: a load after a save sees what was saved. The reader serves users in turns.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import msgspec

from broker.domain.errors import StoreError, StoreUnavailableError
from plugins.persistence.open_files import OpenFiles, may_pass
from plugins.persistence.sqlite.bodies import add_function
from plugins.persistence.sqlite.names import Names
from plugins.persistence.sqlite.schema import migrate
from plugins.persistence.sqlite_files import make_private
from plugins.persistence.threads import FairThread

T = TypeVar("T")
Args = TypeVarTuple("Args")


# The sqlite3 module itself raises the next two: for an integer beyond 64 bits, and for a damaged schema. The
# last is for a stored value that is damaged.
_FAILURES = (sqlite3.Error, OverflowError, UnicodeDecodeError, msgspec.DecodeError)


class Database:
    """Runs jobs (functions that take a connection) on the writer or the reader thread.

    A write job is one transaction: it commits when the job returns and rolls back when it raises.
    `write` and `read` raise `StoreError` for every error of SQLite, with SQLite's error as the cause.
    `written_names` is for write jobs, `read_names` for read jobs: each belongs to one connection.
    """

    def __init__(self, writer: sqlite3.Connection, reader: sqlite3.Connection, files: OpenFiles) -> None:
        self._files = files
        self._writer = writer
        self._reader = reader
        for connection in (writer, reader):
            add_function(connection)
        self.written_names = Names(writer)
        self.read_names = Names(reader)
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._read_thread = FairThread("sqlite-reader")

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` in a transaction. On return its changes are fsynced, in the file that has the
        database's name.

        Raises:
            StoreUnavailableError: nothing was committed, or the file went meanwhile; it may work later.
        """
        # Before: if the file is put back, what is tried again must not be in it already. On the loop's
        # thread, where it costs no change of threads.
        self._files.check()
        result = await _run(self._write_thread, _transaction, self._writer, self.written_names, job)
        self._files.check()
        return result

    async def read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` on the committed state."""
        return await _run(self._read_thread, _query, self._reader, job)

    async def close(self) -> None:
        """Finish the submitted jobs, then close the file."""
        await asyncio.wrap_future(self._read_thread.submit_last(self._reader.close))
        self._read_thread.shutdown()
        await asyncio.wrap_future(self._write_thread.submit(self._writer.close))
        self._write_thread.shutdown()


async def _run(thread: ThreadPoolExecutor | FairThread, function: Callable[[*Args], T], *args: *Args) -> T:
    try:
        waiting = thread.submit(function, *args)
    except RuntimeError as error:  # the thread was shut down
        raise StoreError("the database is closed") from error
    return await asyncio.wrap_future(waiting)


def _transaction(connection: sqlite3.Connection, names: Names, job: Callable[[sqlite3.Connection], T]) -> T:
    try:
        connection.execute("BEGIN IMMEDIATE")
        result = job(connection)
        connection.execute("COMMIT")
        names.committed()
        return result
    except BaseException as error:
        names.rolled_back()
        # After some errors, such as a full disk, SQLite has rolled back already.
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        if isinstance(error, _FAILURES):
            kind = StoreUnavailableError if may_pass(error) else StoreError
            raise kind(_said(error)) from error
        raise


def _query(connection: sqlite3.Connection, job: Callable[[sqlite3.Connection], T]) -> T:
    try:
        return job(connection)
    except _FAILURES as error:
        raise StoreError(_said(error)) from error


def _said(error: Exception) -> str:
    """One line about a failure."""
    if is_corrupt(error) and getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_NOTADB:
        return f"the database is damaged ({' '.join(str(error).split())})"
    return " ".join(str(error).split())


def is_corrupt(error: BaseException | None) -> bool:
    """Whether SQLite has found its file to be damaged."""
    if isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error):
        return True  # a text that is none
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def first_row(connection: sqlite3.Connection, sql: str, *values: object) -> Any:
    """The first row of a query; None if there is none, or if it is on a damaged page."""
    try:
        return connection.execute(sql, values).fetchone()
    except sqlite3.DatabaseError as error:
        if is_corrupt(error):
            return None
        raise


def json_list(values: Sequence[str]) -> str:
    """A list as one statement parameter, for `json_each`. SQLite limits the number of parameters."""
    return msgspec.json.encode(values).decode()


def json_object(values: Mapping[str, int] | Mapping[str, str]) -> str:
    """As `json_list`, for a number or text by each key."""
    return msgspec.json.encode(values).decode()


def open_database(path: Path) -> Database:
    """Open or create the file and bring its schema up to date.

    Raises:
        StoreError: the file cannot be opened, is not a database, or has a newer schema.
    """
    make_private(path)
    with ExitStack() as opened:
        try:
            writer = _connect(path, opened)
            migrate(writer)
            reader = _connect(path, opened)
            reader.execute("PRAGMA query_only = ON")
        except _FAILURES as error:
            raise StoreError(f"{path}: {_said(error)}") from error
        opened.pop_all()  # from here on the Database closes them
    return Database(writer, reader, OpenFiles(path, path.with_name(f"{path.name}-wal")))


def _connect(path: Path, opened: ExitStack) -> sqlite3.Connection:
    """A connection, closed with `opened` from the start: its first statement may fail already."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    opened.callback(connection.close)
    # WAL: the reader does not block the writer, nor the writer the reader.
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL syncs the WAL at every commit: an acknowledged message survives a power cut.
    connection.execute("PRAGMA synchronous = FULL")
    # In pages of 4 KiB: about every 16 MiB of WAL. The default, 1000, would sync the database more often.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 5000")
    return connection
