"""A network between a node and a store, which a test holds up: a TCP relay."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.servers.processes import HOST


class Relay:
    """A port that leads to another one. While it is cut, connections stay open and nothing passes. What was
    on its way arrives when it is healed, as TCP would send it again."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        self._passes.clear()

    def heal(self) -> None:
        self._passes.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Relay"]:
        """Listen."""
        server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            await self._passes.wait()
            try:
                others, other = await asyncio.open_connection(HOST, self._target)
            except OSError:
                writer.transport.abort()
                return
            try:
                # The first side that ends ends both.
                sides = [
                    asyncio.create_task(each)
                    for each in (self._carry(reader, other), self._carry(others, writer))
                ]
                try:
                    await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for side in sides:
                        side.cancel()
                    await asyncio.gather(*sides, return_exceptions=True)
            finally:
                writer.transport.abort()
                other.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._passes.wait()
            writer.write(data)
            await writer.drain()
