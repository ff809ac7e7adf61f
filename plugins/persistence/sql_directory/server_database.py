"""The directory's database on a server, which several nodes use."""

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar, TypeVarTuple
from uuid import uuid4

from sqlalchemy import URL, Connection, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from broker.domain.errors import StoreError, StoreUnavailableError
from broker.ports import DirectoryChange
from plugins.persistence.sql_directory.changes import Key, key_of, read_states, write_rows
from plugins.persistence.sql_directory.database import Database
from plugins.persistence.sql_directory.following import Following
from plugins.persistence.sql_directory.kinds import Kind
from plugins.persistence.sql_directory.migrate import migrate
from plugins.persistence.sql_directory.pool import Pool
from plugins.persistence.sql_directory.turns import Order, Turns

logger = logging.getLogger(__name__)

T = TypeVar("T")
Args = TypeVarTuple("Args")

_ATTEMPTS = 8
_FIRST_PAUSE = 0.005
"""Seconds. Each pause is about twice as long as the one before: 0.6 s in all."""


class ServerDatabase(Database):
    """Jobs run on the event loop, each on a connection of its own.

    Jobs that read see what is committed when each of their statements begins. Jobs that write run with READ
    COMMITTED: what they decide by must be locked, or be guarded by a unique key or a version. If another
    transaction is in their way, they are run again.
    """

    def __init__(self, url: URL, kind: Kind, pool: Pool) -> None:
        super().__init__()
        self._kind = kind
        self._timeout = pool.timeout
        self._failures = _failures(kind)
        # Few jobs write. A job that waits for a row does not keep others from reading.
        writers = max(1, pool.most // 4)
        self._read_turns = Turns(max(1, pool.most - writers))
        self._write_turns = Turns(writers)
        keep = max(1, pool.kept // 4)
        self._reading = _engine(url, kind, pool, max(1, pool.kept - keep), "AUTOCOMMIT")
        self._writing = _engine(url, kind, pool, keep, "READ COMMITTED")
        self._order = Order()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._failing = False
        self._writer = uuid4().hex
        """Names this directory in what it tells other nodes."""
        self._following = Following(self, self._writer, self._tell_states, pool.timeout)

    async def follow(self) -> None:
        """From now on, tell the listeners what other nodes change. Raises `StoreError`."""
        await self._following.start()

    async def look(self) -> None:
        await self._following.poll()

    @property
    def as_of(self) -> float:
        return self._following.as_of

    async def read(self, job: Callable[[Connection, *Args], T], *args: *Args) -> T:
        return await self._finish(self._read(partial(_call, job, args)))

    async def write(
        self, job: Callable[[Connection, *Args], Sequence[DirectoryChange]], *args: *Args
    ) -> None:
        await self._finish(self._write(partial(_call, job, args)))

    async def close(self) -> None:
        await self._following.stop()
        self._closed = True
        while self._jobs:
            await asyncio.wait(self._jobs)
        await self._reading.dispose()
        await self._writing.dispose()

    async def _finish(self, job: Coroutine[Any, Any, T]) -> T:
        """Run a job to its end, even if the caller is cancelled: a connection that is left in the middle of
        a job is of no use any more."""
        if self._closed:
            job.close()
            raise StoreError("directory: it is closed")
        task = asyncio.ensure_future(job)
        self._jobs.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._jobs.discard(task)
        if not task.cancelled():
            task.exception()  # if the caller was cancelled, nobody else asks

    async def _read(self, job: Callable[[Connection], T]) -> T:
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._read_turns,
                self._reading.connect() as connection,
            ):
                result = await connection.run_sync(job)
        except self._failures as error:
            raise self._failure(error) from error
        self._worked()
        return result

    async def _write(self, job: Callable[[Connection], Sequence[DirectoryChange]]) -> None:
        pause = _FIRST_PAUSE
        deadline = time.monotonic() + self._timeout
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                has_changed = await self._transaction(job)
            except self._failures as error:
                last = attempt == _ATTEMPTS or time.monotonic() > deadline
                if last or not self._kind.failed_together(_original(error)):
                    raise self._failure(error) from error
            else:
                self._worked()
                if has_changed and self._confirm is not None:
                    await self._confirm()
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # not at the same time again
            pause *= 2

    async def _transaction(self, job: Callable[[Connection], Sequence[DirectoryChange]]) -> bool:
        """Run a job, commit, and tell the listeners. Returns whether there was anything to tell.

        A job that has changed the same thing before holds its rows locked until it has committed, so its
        place in the order is before."""
        changes: Sequence[DirectoryChange] = ()
        place = None
        committed = False
        try:
            try:
                async with (
                    asyncio.timeout(self._timeout),
                    self._write_turns,
                    self._writing.connect() as connection,
                ):
                    changes = await connection.run_sync(job)
                    # Last, since others look for a row whose transaction is long in coming.
                    await connection.run_sync(write_rows, self._writer, changes)
                    place = self._order.place()
                    await connection.commit()
                    committed = True
            except self._failures:
                if not committed:  # else it is only the connection that has failed
                    raise
            if place is not None:
                await place.come()
            self._tell(changes)
            return bool(changes)
        except self._failures:
            if place is not None:  # it may be committed: nobody knows
                self._following.look_again(map(key_of, changes))
            raise
        finally:
            if place is not None:
                place.leave()

    async def _tell_states(self, keys: Sequence[Key]) -> None:
        """Tell the listeners the states of what others have changed.

        Changes of this node have their places in the order, too: those before have been told, and those after
        are told later, so that none of them follows a newer state. If one does that was read already, what
        has made it newer was committed after the rows of `keys` were read, and is told next.

        Raises:
            StoreError: the database failed or is closed. Nothing was told.
        """
        place = self._order.place()
        try:
            await place.come()
            self._tell(await self.read(read_states, keys))
        finally:
            place.leave()

    def _failure(self, error: Exception) -> StoreError:
        """What a caller is told. Who asks whether the node is ready is told, too, and that may be anybody: so
        names of hosts and users are in the log only."""
        if not may_pass(self._kind, error):
            return StoreError(f"directory: {reason(self._kind, error)}")
        if self._kind.failed_together(_original(error)):
            return StoreUnavailableError("directory: other changes of the same are in the way")
        if not self._failing:
            logger.error("the directory's database fails: %s", reason(self._kind, error))
        self._failing = True
        return StoreUnavailableError("directory: the database server fails, or cannot be reached")

    def _worked(self) -> None:
        if self._failing:
            logger.warning("the directory's database works again")
        self._failing = False


def _failures(kind: Kind) -> tuple[type[Exception], ...]:
    """What is raised when a job fails."""
    return SQLAlchemyError, OSError, EOFError, TimeoutError, OverflowError, UnicodeError, *kind.errors


def _call(job: Callable[[Connection, *Args], T], args: "tuple[*Args]", connection: Connection) -> T:
    return job(connection, *args)


def _original(error: BaseException) -> BaseException:
    """The driver's error."""
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def may_pass(kind: Kind, error: BaseException) -> bool:
    """Whether the same job may work later."""
    if isinstance(error, (OSError, EOFError, TimeoutError, DisconnectionError)):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return kind.may_pass(_original(error))


def reason(kind: Kind, error: BaseException) -> str:
    """One line. Without the statement, its values, and the password."""
    if isinstance(error, (TimeoutError, EOFError, DisconnectionError)):
        return "the database server does not answer"
    if isinstance(error, UnicodeError):
        return "surrogates are no text"  # the error has the whole statement
    text = str(error) if isinstance(error, OSError) else kind.reason(_original(error))
    return " ".join(text.split())


# --- opening --------------------------------------------------------------------------


async def open_server(url: URL, kind: Kind, pool: Pool) -> ServerDatabase:
    """Connect to the database at a URL, and bring its tables up to date.

    Raises:
        StoreError: it cannot be reached or used, or a newer version of this program wrote it.
    """
    shown = url.render_as_string(hide_password=True)
    try:
        async with _opened(url, kind, pool) as connection:
            await connection.run_sync(kind.check)
        async with _opened(url, kind, pool) as connection:
            await connection.run_sync(partial(_migrate, kind))
    except StoreError as error:
        raise StoreError(f"directory {shown}: {error}") from error
    except _failures(kind) as error:
        raise StoreError(f"directory {shown}: {reason(kind, error)}") from error
    database = ServerDatabase(url.set(drivername=kind.driver), kind, pool)
    try:
        await database.follow()
    except StoreError:
        await database.close()
        raise
    return database


@asynccontextmanager
async def _opened(url: URL, kind: Kind, pool: Pool) -> AsyncIterator[AsyncConnection]:
    """A connection that is closed at the end, in a transaction."""
    engine = create_async_engine(
        url.set(drivername=kind.driver),
        poolclass=NullPool,
        isolation_level="READ COMMITTED",
        connect_args=kind.migration_options(pool),
    )
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


def _migrate(kind: Kind, connection: Connection) -> None:
    kind.lock(connection)
    migrate(connection)


def _engine(url: URL, kind: Kind, pool: Pool, kept: int, isolation: Any) -> AsyncEngine:
    engine = create_async_engine(
        url,
        isolation_level=isolation,
        pool_size=kept,
        max_overflow=pool.most,  # `Turns` bounds it
        pool_timeout=pool.timeout,
        pool_pre_ping=True,
        pool_use_lifo=True,  # those that are not needed become idle
        # A connection that commits by itself has nothing to roll back: one round trip less for each read.
        pool_reset_on_return=None if isolation == "AUTOCOMMIT" else "rollback",
        connect_args=kind.options(pool),
    )

    def used(_connection: object, record: Any) -> None:
        record.info["used"] = time.monotonic()

    def check_age(_connection: object, record: Any, _proxy: object) -> None:
        # Firewalls forget connections that are idle, without a word to either side.
        if time.monotonic() - record.info.get("used", math.inf) > pool.idle_seconds:
            raise DisconnectionError("it was idle")

    event.listen(engine.sync_engine, "checkin", used)
    event.listen(engine.sync_engine, "checkout", check_age)
    return engine
