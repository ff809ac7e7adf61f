"""Follows what other nodes change in the directory, and tells the listeners of this node.

Ids are given when a row is written, and seen when its transaction commits: in another order. So an id that is
missing is looked for again until its transaction can only have been undone.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from broker.domain.errors import StoreError
from plugins.persistence.sql_directory.changes import Key, Row, delete_rows, newest_id, select_rows
from plugins.persistence.sql_directory.database import Database

logger = logging.getLogger(__name__)

_PAUSE = 0.25
_MOST = 5000
"""Rows of one poll."""
_MISSING = 10_000
"""Ids that are looked for again. A server that gives every third id, as Galera does, has many."""
_BEFORE = 1000
"""Ids before the start among which some may be missing."""
_KEPT_SECONDS = 600
"""A node that cannot read the database for so long must not use what it knows."""
_CLEANING_SECONDS = 60


class Following:
    """The rows of others that this node, `writer`, has read. `tell_states` reads what they name and tells the
    listeners; it raises `StoreError`. `timeout`: seconds for one job of the database.

    `as_of` is the monotonic time in seconds at which the last poll began of whose changes the listeners have
    been told."""

    def __init__(
        self,
        database: Database,
        writer: str,
        tell_states: Callable[[Sequence[Key]], Awaitable[None]],
        timeout: float,
    ) -> None:
        self._database = database
        self._writer = writer
        self._tell_states = tell_states
        self._open_seconds = 3 * timeout
        """A transaction ends in this time: the server, too, ends one that is idle."""
        self._last = 0
        self._missing: dict[int, float] = {}
        """When each id was found to be missing; the oldest first."""
        self._untold: dict[Key, None] = {}
        self._ids: deque[tuple[float, int]] = deque()
        """The last id at some times, one in a minute."""
        self._task: asyncio.Task[None] | None = None
        self._polling = asyncio.Lock()
        self._failing = False
        self.as_of = 0.0

    async def start(self) -> None:
        """From now on, changes of others are told. Call it before anything is read that is kept."""
        newest = await self._database.read(newest_id)
        self._last = max(0, newest - _BEFORE)
        await self._read(told=False)
        self.as_of = time.monotonic()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="directory changes")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PAUSE)
            try:
                await self.poll()
                await self._clean()
            except Exception as error:  # a listener's, too: the next poll tells it again
                if not self._failing:
                    about = None if isinstance(error, StoreError) else error
                    logger.warning("changes of other nodes cannot be told: %s", error, exc_info=about)
                self._failing = True
            else:
                self._failing = False

    def look_again(self, keys: Iterable[Key]) -> None:
        """Tell the states of these, too: it is not known whether a change of this node was committed."""
        self._untold.update(dict.fromkeys(keys))

    async def poll(self) -> None:
        """Read what is new, and tell the listeners.

        Raises:
            StoreError: the database failed. The next poll tells it.
        """
        async with self._polling:
            await self._poll()

    async def _poll(self) -> None:
        began = time.monotonic()
        while await self._read(told=True) == _MOST:
            pass
        keys, self._untold = self._untold, {}
        try:
            if keys:
                await self._tell_states(list(keys))
        except BaseException:
            self._untold = keys | self._untold
            raise
        self.as_of = began

    async def _read(self, *, told: bool) -> int:
        """Returns the number of new rows."""
        rows = await self._database.read(select_rows, self._last, list(self._missing), _MOST)
        self._note(rows)
        if told:
            others = (row.key for row in rows if row.writer != self._writer)
            self._untold.update(dict.fromkeys(others))
        return len(rows)

    def _note(self, rows: Sequence[Row]) -> None:
        now = time.monotonic()
        for row in rows:
            self._missing.pop(row.id, None)
            if row.id > self._last:
                skipped: Iterable[int] = range(max(self._last + 1, row.id - _MISSING), row.id)
                self._missing.update(dict.fromkeys(skipped, now))
                self._last = row.id
        while self._missing:
            oldest = next(iter(self._missing))
            if now - self._missing[oldest] < self._open_seconds and len(self._missing) <= _MISSING:
                return
            del self._missing[oldest]

    async def _clean(self) -> None:
        """Delete what all nodes have read long ago. By ids, since the nodes' clocks may differ."""
        now = time.monotonic()
        if self._ids and now - self._ids[-1][0] < _CLEANING_SECONDS:
            return
        self._ids.append((now, self._last))
        if now - self._ids[0][0] >= _KEPT_SECONDS:
            _, up_to = self._ids.popleft()
            await self._database.write(delete_rows, up_to)
