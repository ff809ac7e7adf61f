"""The database under the directory: how a job runs on it, who is told of changes.

A job is a plain function. It gets a connection, runs its statements on it, and knows nothing of threads or of
the event loop. `file_database.py` has the database in a file, `server_database.py` the one on a server.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from broker.ports import DirectoryChange

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Database(ABC):
    """Runs jobs in transactions and tells the listeners what the jobs have changed."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[DirectoryChange], None]] = []
        self._confirm: Callable[[], Awaitable[None]] | None = None

    @property
    def file(self) -> Path | None:
        """The file of the database; None if a server has it."""
        return None

    @property
    def as_of(self) -> float | None:
        """See `SqlDirectory`."""
        return None

    def on_change(self, callback: Callable[[DirectoryChange], None]) -> None:
        """See `broker.ports.Directory`."""
        self._listeners.append(callback)

    def confirm_by(self, confirm: Callable[[], Awaitable[None]]) -> None:
        """See `SqlDirectory`."""
        self._confirm = confirm

    @abstractmethod
    async def look(self) -> None:
        """See `SqlDirectory`."""

    def _tell(self, changes: Sequence[DirectoryChange]) -> None:
        for change in changes:
            for listener in self._listeners:
                listener(change)

    @abstractmethod
    async def read(self, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
        """Run a job that changes nothing. Returns what it returns.

        Raises:
            StoreError: the database failed or is closed.
        """

    @abstractmethod
    async def write(
        self, job: Callable[[Connection, *Args], Sequence[DirectoryChange]], *args: *Args
    ) -> None:
        """Run a job that returns its changes, then tell the listeners: of changes of the same thing in the
        order in which they were committed. Listeners are told even if the caller is cancelled meanwhile,
        because the transaction is committed all the same.

        Raises:
            DirectoryError: the job refuses the change. Nothing is written.
            StoreError: the database failed or is closed.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish the jobs that were given, then close the connections."""


class SqlPart:
    """A part of the directory. All parts share one database."""

    def __init__(self, database: Database) -> None:
        self._database = database


def reason(error: Exception) -> str:
    """The driver's message. Without the statement and its values, which can be personal data."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)
