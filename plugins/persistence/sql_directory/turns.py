"""Turns at something of which only so many may use at once: the connections of a pool."""

import asyncio
from collections import deque

from broker.domain.acting import SERVER, whose
from broker.domain.lines import Lines


class Turns:
    """At most `count` at once. Who waits has turns by user, and what the server does by itself is first, as
    on a `FairThread`."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._of_server: deque[asyncio.Future[None]] = deque()
        self._of_users: Lines[asyncio.Future[None]] = Lines()

    async def __aenter__(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if (key := whose()) == SERVER:
            self._of_server.append(turn)
        else:
            self._of_users.put(key, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came at the same moment
                self._pass_on()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        while (turn := self._next()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _next(self) -> "asyncio.Future[None] | None":
        return self._of_server.popleft() if self._of_server else self._of_users.take()


class Order:
    """Steps that are taken in the order in which their places were taken, whenever they are ready."""

    def __init__(self) -> None:
        self._last: asyncio.Future[None] | None = None

    def place(self) -> "Place":
        """The next place."""
        before, mine = self._last, asyncio.get_running_loop().create_future()
        self._last = mine
        return Place(before, mine)


class Place:
    """A place in an `Order`. It must be left, or all later ones wait."""

    def __init__(self, before: "asyncio.Future[None] | None", mine: "asyncio.Future[None]") -> None:
        self._before = before
        self._mine = mine

    async def come(self) -> None:
        """Wait until all places before have been left."""
        if self._before is not None:
            await asyncio.shield(self._before)
            self._before = None

    def leave(self) -> None:
        """The step was taken, or will not be: whoever is next may go, once all before have left, too."""
        if self._before is None or self._before.done():
            self._mine.set_result(None)
        else:
            self._before.add_done_callback(lambda _: self._mine.set_result(None))
