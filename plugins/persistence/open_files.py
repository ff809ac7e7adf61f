"""The files of a SQLite database that is open: are they still there under their names? Can they be written?

SQLite writes on into a file that was removed or replaced. What it commits there is gone after a restart.
"""

import os
import sqlite3
from pathlib import Path

from broker.domain.errors import StoreUnavailableError

_PASSING = frozenset(
    (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
    )
)


def may_pass(error: BaseException | None) -> bool:
    """Whether SQLite has failed for a reason that may pass, so that the same transaction may work later."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING


class OpenFiles:
    """Files that exist: a database, and its write-ahead log."""

    def __init__(self, *paths: Path) -> None:
        self._names = tuple(map(str, paths))
        self._known = tuple(map(_identity, self._names))

    def check(self) -> None:
        """Whatever was committed before the call is in the files that have the names.

        One look for each file, which costs about a microsecond: it comes before every transaction that
        writes, and after its commit, before anything is acknowledged.

        Raises:
            StoreUnavailableError: a file was removed or replaced.
        """
        for name, known in zip(self._names, self._known, strict=True):
            if _identity(name) != known:
                raise StoreUnavailableError(
                    f"{Path(name).name} was removed or replaced while the node was running: nothing is "
                    "stored any more, put the file back or restart the node"
                )


def _identity(name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(name)
    except OSError:
        return None
    return found.st_dev, found.st_ino
