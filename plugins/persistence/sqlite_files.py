"""SQLite files: their mode, and reading and copying them while they are in use."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from broker.domain.errors import StoreError

logger = logging.getLogger(__name__)

_PAGES = 1024
"""Pages copied at a time: 4 MiB."""
_PRIVATE = 0o600


def make_private(file: Path) -> None:
    """Give a database file and the files that SQLite keeps beside it the mode 0600, whatever the umask.

    Creates the file if there is none, since SQLite gives the others the mode of the file. If it cannot be
    created nothing is done: SQLite then says why."""
    with contextlib.suppress(OSError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, _PRIVATE))
    for suffix in ("", "-wal", "-shm", "-journal"):
        path = file.with_name(file.name + suffix)
        try:
            if path.stat().st_mode & 0o777 & ~_PRIVATE:
                path.chmod(_PRIVATE)
        except FileNotFoundError:
            continue
        except OSError as error:  # somebody else's file, or a file system without modes
            logger.warning("others may read %s: %s", path, error.strerror)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that only reads, for any thread. A file that is missing is not created. Raises
    `sqlite3.Error`."""
    uri = f"{path.absolute().as_uri()}?mode=rw"  # a reader of a WAL writes its index
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    connection.execute("PRAGMA busy_timeout = 5000")
    return connection


def check_table(connection: sqlite3.Connection, table: str) -> list[str]:
    """What SQLite finds wrong with the pages, indexes and unique keys of a table. It holds a snapshot as
    long as it takes to read the table. Raises `sqlite3.Error`."""
    lines = connection.execute(f"PRAGMA integrity_check('{table}')").fetchall()
    return [line for (line,) in lines if line != "ok"]


def tables(connection: sqlite3.Connection) -> list[str]:
    """The names of the tables."""
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    )
    return [name for (name,) in rows]


async def copy_database(source: Path, target: Path) -> None:
    """Copy a database that is in use, as of one moment, into a new file of mode 0600. On return it is on
    disk. Writers do not wait for it.

    Raises:
        StoreError: it cannot be read, or the copy cannot be written.
    """
    given_up = threading.Event()
    copying = asyncio.get_running_loop().run_in_executor(None, _copy, source, target, given_up)
    try:
        await asyncio.shield(copying)
    except asyncio.CancelledError:
        given_up.set()
        await asyncio.wait([copying])
        copying.exception()  # nobody asks for it any more
        raise


def _copy(source: Path, target: Path, given_up: threading.Event) -> None:
    def progress(*_: int) -> None:
        if given_up.is_set():
            raise InterruptedError("given up")

    try:
        # 0600 from the beginning. SQLite keeps the mode of a file that exists.
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(connect(source)) as original, closing(sqlite3.connect(target)) as copy:
            # A transaction that reads keeps what it sees until it ends, whatever is written meanwhile.
            original.execute("BEGIN")
            original.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            original.backup(copy, pages=_PAGES, progress=progress)
        sync(target)
        sync(target.parent)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"copying {source.name} to {target}: {error}") from error


def sync(path: Path) -> None:
    """Wait until a file or directory is on disk. Raises `OSError`."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
