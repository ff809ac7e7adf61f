"""Turns: which node appends to which logs.

`<prefix>{turn}:o:<log>` holds the name of the node whose turn it is and lapses by itself;
`<prefix>{turn}:h:<log>` the head that was committed last. All keys have one hash tag, because one call
takes several of them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.ports import Head, Taken

from .scripts import script

logger = logging.getLogger(__name__)

_LEASE_MS = 1000
_RENEW_SECONDS = 0.4
_HEAD_SECONDS = 3600

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Head).decode


class RedisTurns:
    """See `broker.ports.Turns`."""

    def __init__(self, client: Redis, prefix: str, name: str) -> None:
        self._client = client
        self._owner = f"{prefix}{{turn}}:o:"
        self._head = f"{prefix}{{turn}}:h:"
        self._name = name
        self._take = client.register_script(script("take"))
        self._give = client.register_script(script("give"))
        self._renew = client.register_script(script("renew"))
        self._held: set[str] = set()
        self._giving: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._freed = asyncio.Event()

    def start(self) -> None:
        """Renew what is held, again and again."""
        self._renewing = asyncio.get_running_loop().create_task(self._keep_renewing())

    async def close(self) -> None:
        """Give everything back."""
        if self._renewing is not None:
            self._renewing.cancel()
        if self._giving:
            await asyncio.wait(self._giving)

    async def take(self, groups: Sequence[Sequence[str]]) -> Taken:
        """See `Turns`."""
        if self._giving:  # what is being given back might be asked for again
            await asyncio.wait(self._giving)
        index: dict[str, int] = {}
        arguments: list[str | int] = [self._name, _LEASE_MS]
        for logs in groups:
            arguments.append(len(logs))
            arguments += [index.setdefault(log, len(index) + 1) for log in logs]
        try:
            answer = await cast(
                Awaitable[Any], self._take(keys=[self._owner + log for log in index], args=arguments)
            )
            granted = [bool(each) for each in answer]
            mine = {log for logs, is_mine in zip(groups, granted, strict=True) if is_mine for log in logs}
            self._held |= mine
            return Taken(granted, await self._heads(list(mine)))
        except (RedisError, OSError) as error:
            logger.debug("taking turns: %s", error)
            return Taken([True] * len(groups), {})

    async def _heads(self, logs: Sequence[str]) -> dict[str, Head]:
        if not logs:
            return {}
        values = await cast(Awaitable[Any], self._client.mget([self._head + log for log in logs]))
        return {log: _decode(value) for log, value in zip(logs, values, strict=True) if value}

    async def freed(self) -> None:
        """See `Turns`."""
        self._freed.clear()
        try:
            async with asyncio.timeout(_LEASE_MS / 1000):
                await self._freed.wait()
        except TimeoutError:
            pass

    def tell_freed(self) -> None:
        """Another node has given turns back."""
        self._freed.set()

    def give_back(self, heads: Mapping[str, Head | None]) -> None:
        """See `Turns`."""
        self._held.difference_update(heads)
        task = asyncio.get_running_loop().create_task(self._give_back(heads))
        self._giving.add(task)
        task.add_done_callback(self._giving.discard)

    async def _give_back(self, heads: Mapping[str, Head | None]) -> None:
        keys = [self._owner + log for log in heads] + [self._head + log for log in heads]
        values = [b"" if head is None else _encode(head) for head in heads.values()]
        try:
            await cast(Awaitable[Any], self._give(keys=keys, args=[self._name, _HEAD_SECONDS, *values]))
        except (RedisError, OSError) as error:
            logger.debug("giving turns back: %s", error)  # they lapse

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if not self._held:
                continue
            keys = [self._owner + log for log in self._held]
            try:
                await cast(Awaitable[Any], self._renew(keys=keys, args=[self._name, _LEASE_MS]))
            except (RedisError, OSError) as error:
                logger.debug("renewing turns: %s", error)
