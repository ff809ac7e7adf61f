"""Checks and copies of the database, each on a connection and a thread of its own, so that neither the
writer nor the reader waits for them."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from broker.domain.errors import StoreError
from broker.ports import Verified
from plugins.persistence.sqlite.bodies import add_function
from plugins.persistence.sqlite.verify import verification
from plugins.persistence.sqlite_files import connect, copy_database


class SqliteUpkeep:
    """See `broker.ports.Upkeep`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def verify(self) -> AsyncGenerator[Verified, None]:
        """See `Upkeep`."""
        loop = asyncio.get_running_loop()
        try:
            connection = connect(self._path)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        add_function(connection)
        thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-verify")
        reports = verification(connection)
        try:
            while (report := await loop.run_in_executor(thread, next, reports, None)) is not None:
                yield report
        finally:
            connection.interrupt()  # a long statement, if the caller has gone
            await loop.run_in_executor(thread, connection.close)
            thread.shutdown()

    async def copy(self, folder: Path) -> None:
        """See `Upkeep`."""
        await copy_database(self._path, folder / self._path.name)
