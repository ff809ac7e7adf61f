"""Which nodes live.

`<prefix>heartbeat:<node>` holds what a node says of itself, and lapses without renewal. `<prefix>nodes` is
the set of the names, so that a name whose heartbeat has lapsed is noticed. Whoever notices it cleans up,
with a lock that lapses.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.ports import Member

logger = logging.getLogger(__name__)

_BEAT_SECONDS = 10.0
_LIFE_SECONDS = 40
_LOOK_SECONDS = 5.0
_SWEEP_SECONDS = 30
"""For how long nobody else cleans up after a node."""

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Member).decode


class RedisMembers:
    """See `broker.ports.Members`."""

    def __init__(self, client: Redis, prefix: str, name: str) -> None:
        self._client = client
        self._prefix = prefix
        self._names = f"{prefix}nodes"
        self._name = name
        self._member: Member | None = None
        self._gone: Callable[[str], Awaitable[None]] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Beat and look, again and again."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(_every(_BEAT_SECONDS, self.beat)),
            loop.create_task(_every(_LOOK_SECONDS, self._look)),
        ]

    async def close(self) -> None:
        """This node goes, and has cleaned up after itself."""
        for task in self._tasks:
            task.cancel()
        try:
            await self._forget(self._name)
        except (RedisError, OSError) as error:
            logger.debug("leaving: %s", error)

    async def announce(self, member: Member) -> None:
        """See `Members`."""
        self._member = member
        try:
            await self.beat()
        except (RedisError, OSError) as error:
            logger.debug("announcing this node: %s", error)

    async def beat(self) -> None:
        """Say that this node lives."""
        if self._member is not None:
            value = _encode(self._member)
            pipeline = self._client.pipeline(transaction=False)
            pipeline.set(self._heartbeat(self._name), value, ex=_LIFE_SECONDS)
            pipeline.sadd(self._names, self._name)
            await pipeline.execute()

    async def all(self) -> list[Member] | None:
        """See `Members`."""
        try:
            names = sorted(name.decode() for name in await self._known())
            if not names:
                return []
            values = await cast(Awaitable[Any], self._client.mget([self._heartbeat(name) for name in names]))
        except (RedisError, OSError) as error:
            logger.debug("asking for the nodes: %s", error)
            return None
        return [_decode(value) for value in values if value is not None]

    def on_gone(self, gone: Callable[[str], Awaitable[None]]) -> None:
        """See `Members`."""
        self._gone = gone

    async def _look(self) -> None:
        for raw in await self._known():
            name = raw.decode()
            if name == self._name or await self._client.exists(self._heartbeat(name)):
                continue
            lock = f"{self._prefix}sweep:{name}"
            if self._gone is not None and await self._client.set(
                lock, self._name, nx=True, ex=_SWEEP_SECONDS
            ):
                logger.warning("node %s is gone: cleaning up after it", name)
                await self._gone(name)
                await self._forget(name)

    async def _known(self) -> set[bytes]:
        return await cast(Awaitable[set[bytes]], self._client.smembers(self._names))

    async def _forget(self, name: str) -> None:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.srem(self._names, name)
        pipeline.delete(self._heartbeat(name))
        await pipeline.execute()

    def _heartbeat(self, name: str) -> str:
        return f"{self._prefix}heartbeat:{name}"


async def _every(seconds: float, job: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await job()
        except (RedisError, OSError) as error:
            logger.debug("Redis: %s", error)
        except Exception:
            logger.exception("a periodic job failed")
        await asyncio.sleep(seconds)
