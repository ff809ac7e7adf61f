"""One connection that only sends, or only listens.

redis-py takes 17 us to read a published message, and a task for each command. What flows all the time,
hints and mail, has connections of its own, of which this is the protocol: commands go out as they come, and
replies come in as the parser of hiredis finds them. A connection that is lost is made again, until it is
closed.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis

logger = logging.getLogger(__name__)

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 2.0
_MOST_UNSENT = 64 * 1024 * 1024
_PING_SECONDS = 1.0
_DEAD_AFTER = 3.0

Command = Sequence[bytes | str]


def pack(command: Command) -> bytes:
    """The bytes of a command."""
    return cast(bytes, hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]  # of any length


class _Protocol(asyncio.Protocol):
    def __init__(self, received: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._reader = hiredis.Reader()
        self._received = received
        self._lost = lost

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._received(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


class Wire:
    """`received(reply)` is called for each reply; `opened` when the connection is there, and there again;
    `broken` when it is lost."""

    def __init__(
        self,
        url: str,
        timeout: float,
        received: Callable[[Any], None],
        opened: Callable[[], None],
        broken: Callable[[], None],
    ) -> None:
        self._url = urlsplit(url)
        self._timeout = timeout
        self._on_reply = received
        self._opened = opened
        self._broken = broken
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._heard = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether commands reach Redis now, as far as is known."""
        return self._transport is not None

    def start(self) -> None:
        """Connect, and stay connected."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Disconnect."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def send(self, *commands: Command) -> bool:
        """Send commands. Returns False, and sends nothing, without a connection, or if too much is not sent
        yet."""
        transport = self._transport
        if transport is None or transport.get_write_buffer_size() > _MOST_UNSENT:
            return False
        transport.write(b"".join([pack(command) for command in commands]))
        return True

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            try:
                await self._connect()
            except (OSError, TimeoutError, hiredis.HiredisError) as error:
                logger.debug("connecting to Redis: %s", error)
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LONGEST_DELAY)
                continue
            delay = _FIRST_DELAY
            await self._stay()

    async def _connect(self) -> None:
        loop, url = asyncio.get_running_loop(), self._url
        replies: asyncio.Queue[Any] = asyncio.Queue()
        self._handle: Callable[[Any], None] = replies.put_nowait
        self._lost.clear()
        context = ssl.create_default_context() if url.scheme == "rediss" else None
        async with asyncio.timeout(self._timeout):
            transport, _ = await loop.create_connection(
                lambda: _Protocol(self._take, self._lost.set),
                url.hostname or "127.0.0.1",
                url.port or 6379,
                ssl=context,
            )
            try:
                for command in self._greeting():
                    transport.write(pack(command))
                    if isinstance(reply := await replies.get(), Exception):
                        raise reply
            except BaseException:
                transport.abort()
                raise
        self._handle = self._on_reply
        self._transport = transport
        self._heard = loop.time()
        self._opened()

    def _greeting(self) -> list[list[str]]:
        url, commands = self._url, []
        if url.password:
            user = [unquote(url.username)] if url.username else []
            commands.append(["AUTH", *user, unquote(url.password)])
        if database := url.path.strip("/"):
            commands.append(["SELECT", database])
        return [*commands, ["PING"]]

    def _take(self, reply: Any) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._handle(reply)

    async def _stay(self) -> None:
        """Until the connection is lost, or nothing has come for a while although it was asked for."""
        loop = asyncio.get_running_loop()
        while not self._lost.is_set() and loop.time() - self._heard < _DEAD_AFTER:
            self.send(["PING"])
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                continue
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._broken()
