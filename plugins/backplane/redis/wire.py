"""One connection that only sends, or only listens.

redis-py takes 17 us to read a published message, and a task for each command. What flows all the time has
connections of its own, of which this is the protocol: commands go out as they come, and replies come in as
the parser of hiredis finds them. A connection that is lost is made again, until it is closed.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from .finder import Command, Finder, Place, pack

logger = logging.getLogger(__name__)

_FIRST_DELAY = 0.05
LONGEST_DELAY = 1.0
"""Seconds between two attempts to connect."""
_STEADY_SECONDS = 5.0
"""A connection that lasted for so long was a good one: the next attempt follows soon."""
_MOST_UNSENT = 64 * 1024 * 1024
_LOOKS = 4
"""How often a server is asked for a sign of life in the time in which it must give one."""
_MOVES_SECONDS = 2.0


class _Connection(asyncio.Protocol):
    """`lost` is set when the connection is. Replies go to the queue first, then to `hand_to`."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self.replies: asyncio.Queue[Any] = asyncio.Queue()
        self._received: Callable[[Any], None] = self.replies.put_nowait
        self.lost = asyncio.Event()
        self.heard = 0.0

    def hand_to(self, received: Callable[[Any], None]) -> None:
        self._received = received

    def data_received(self, data: bytes) -> None:
        self.heard = asyncio.get_running_loop().time()
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            try:
                self._received(reply)
            except Exception:  # what one message does must not end the connection
                logger.exception("a reply of Redis could not be used")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


class Wire:
    """`received(reply)` is called for each reply; `opened` when the connection is there, and there again;
    `broken` when it is lost. `ping` asks the server for a sign of life, which it must give within `timeout`
    seconds. `greeting`: what each connection begins with."""

    def __init__(
        self,
        finder: Finder,
        timeout: float,
        received: Callable[[Any], None],
        opened: Callable[[], None],
        broken: Callable[[], None],
        ping: Callable[[], object] | None = None,
        greeting: Sequence[Command] = (),
    ) -> None:
        self._finder = finder
        self._timeout = timeout
        self._on_reply = received
        self._opened = opened
        self._broken = broken
        self._ping = ping or (lambda: self.send(["PING"]))
        self._greeting = greeting
        self._transport: asyncio.Transport | None = None
        self._settled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.error = "no answer in time"
        """Why there was no connection last."""

    @property
    def is_open(self) -> bool:
        """Whether commands reach Redis now, as far as is known."""
        return self._transport is not None

    def start(self) -> None:
        """Connect, and stay connected."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def opened(self) -> None:
        """Wait until there is a connection, or a server has refused it, see `error`."""
        await self._settled.wait()

    async def close(self) -> None:
        """Disconnect, when all is sent."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def send(self, *commands: Command) -> bool:
        """Send commands. Returns False, and sends nothing, without a connection."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() > _MOST_UNSENT:
            self.error = "it does not read what it is sent"
            self.give_up()
            return False
        transport.write(b"".join([pack(command) for command in commands]))
        return True

    def give_up(self) -> None:
        """This connection is of no use any more: make another, perhaps to another server."""
        if self._transport is not None:
            self._transport.abort()

    async def _run(self) -> None:
        loop, delay = asyncio.get_running_loop(), _FIRST_DELAY
        while True:
            started = loop.time()
            try:
                place, transport, connection = await self._connect()
            except (OSError, TimeoutError, ValueError, hiredis.HiredisError) as error:
                self.error = str(error) or "no answer in time"
                logger.debug("connecting to Redis: %s", self.error)
                if isinstance(error, hiredis.HiredisError):
                    self._settled.set()
            else:
                await self._stay(place, transport, connection)
            steady = loop.time() - started > _STEADY_SECONDS
            delay = _FIRST_DELAY if steady else min(2 * delay, LONGEST_DELAY)
            # Not all nodes at the same moment.
            await asyncio.sleep(delay * (1 + secrets.randbelow(1000) / 1000) / 2)

    async def _connect(self) -> tuple[Place, asyncio.Transport, _Connection]:
        loop = asyncio.get_running_loop()
        place = await self._finder.find()
        async with asyncio.timeout(self._timeout):
            transport, connection = await loop.create_connection(_Connection, *place, ssl=self._finder.tls)
            try:
                await self._greet(transport, connection)
            except BaseException:
                transport.abort()
                raise
        return place, transport, connection

    async def _greet(self, transport: asyncio.Transport, connection: _Connection) -> None:
        for command in [*self._finder.greeting(), *self._greeting]:
            transport.write(pack(command))
            next_reply = asyncio.ensure_future(connection.replies.get())
            lost = asyncio.ensure_future(connection.lost.wait())
            try:
                await asyncio.wait({next_reply, lost}, return_when=asyncio.FIRST_COMPLETED)
                if not next_reply.done():
                    raise ConnectionResetError("it has closed the connection")
                reply = next_reply.result()
            finally:
                next_reply.cancel()
                lost.cancel()
            if isinstance(reply, Exception):
                raise reply
            if command[0] == "ROLE" and reply[0] != b"master":
                raise ConnectionError("the server is not the master any more")

    async def _stay(self, place: Place, transport: asyncio.Transport, connection: _Connection) -> None:
        """Until the connection is lost, or nothing has come for a while although it was asked for."""
        loop = asyncio.get_running_loop()
        connection.hand_to(self._on_reply)
        self._transport = transport
        self._settled.set()
        try:
            self._opened()
            looked, silent = loop.time(), 0
            # Signs are counted rather than seconds, in which this process may have stood still.
            while not connection.lost.is_set() and silent < _LOOKS:
                asked = loop.time()
                self._ping()
                try:
                    async with asyncio.timeout(self._timeout / _LOOKS):
                        await connection.lost.wait()
                except TimeoutError:
                    silent = 0 if connection.heard >= asked else silent + 1
                if self._finder.moves and loop.time() - looked > _MOVES_SECONDS:
                    looked = loop.time()
                    if await self._has_moved(place):
                        break
        finally:
            connection.hand_to(_ignore)
            self._settled.clear()
            if self._transport is not None:
                self._transport = None
                transport.abort()
        self.error = "the connection is lost"
        self._broken()

    async def _has_moved(self, place: Place) -> bool:
        try:
            return await self._finder.find() != place
        except OSError:
            return False  # the sentinels are away, which the server need not be


def _ignore(_reply: Any) -> None:
    """Of a connection that is given up."""
