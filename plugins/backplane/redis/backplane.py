"""The backplane of one node, from its parts."""

import asyncio
from collections import Counter
from collections.abc import Callable

from redis.asyncio import Redis

from broker.ports import Hint

from .channels import Channels
from .client import RedisOptions, open_client
from .devices import RedisDevices
from .members import RedisMembers
from .turns import RedisTurns


class RedisBackplane:
    """See `broker.ports.Backplane`."""

    def __init__(self, client: Redis, options: RedisOptions, name: str, dropped: Counter[str]) -> None:
        self.name = name
        self._client = client
        self._broken: list[Callable[[], None]] = []
        self._returned: list[Callable[[], None]] = []
        self.turns = RedisTurns(client, options.prefix, name)
        self.members = RedisMembers(client, options.prefix, name)
        self.devices = RedisDevices(client, options.prefix)
        self.hints = self.mail = self._channels = Channels(
            options, name, self._tell_broken, self._tell_returned, dropped
        )
        self._telling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect to the other nodes."""
        self._channels.start()
        self.turns.start()
        self.members.start()

    def on_hint(self, received: Callable[[Hint], None]) -> None:
        """See `Backplane`."""
        self._channels.on_hint(received)

    def on_break(self, broken: Callable[[], None]) -> None:
        """See `Backplane`."""
        self._broken.append(broken)

    def on_return(self, returned: Callable[[], None]) -> None:
        """See `Backplane`."""
        self._returned.append(returned)

    def _tell_broken(self) -> None:
        for broken in self._broken:
            broken()

    def _tell_returned(self) -> None:
        self._telling = asyncio.get_running_loop().create_task(self._tell_again())

    async def _tell_again(self) -> None:
        await self.devices.tell_again()
        for returned in self._returned:
            returned()

    async def close(self) -> None:
        """See `Backplane`."""
        if self._telling is not None:
            self._telling.cancel()
        await self.turns.close()
        await self.members.close()
        await self._channels.close()
        await self._client.aclose()


async def open_backplane(options: RedisOptions, name: str, dropped: Counter[str]) -> RedisBackplane:
    """Connect to Redis. Raises `StoreError`."""
    backplane = RedisBackplane(await open_client(options), options, name, dropped)
    backplane.start()
    return backplane
