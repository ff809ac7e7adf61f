"""The backplane of one node, from its parts."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from redis.exceptions import RedisError

from broker.domain.errors import StoreError
from broker.ports import Hint

from .client import Client, open_client
from .devices import RedisDevices
from .finder import Finder
from .hints import RedisHints
from .listener import Listener
from .mail import ALL, RedisMail
from .members import RedisMembers
from .options import RedisOptions, place
from .publisher import Publisher
from .turns import RedisTurns

logger = logging.getLogger(__name__)


class RedisBackplane:
    """See `broker.ports.Backplane`."""

    def __init__(self, client: Client, options: RedisOptions, name: str, dropped: Counter[str]) -> None:
        self.name = name
        self._client = client
        self._options = options
        self._broken: list[Callable[[], None]] = []
        self._returned: list[Callable[[], None]] = []
        self.turns = RedisTurns(options, name)
        self.devices = RedisDevices(options, name)
        finder, prefix = Finder(options), options.prefix
        self._publisher = Publisher(finder, options.timeout, prefix, name, dropped)
        self.mail = RedisMail(self._publisher, self.turns.tell_freed, dropped)
        self.members = RedisMembers(client, prefix, name, self.mail, self._tell_returned)
        own = [f"{prefix}message:{each}".encode() for each in (name, ALL)]
        self._listener = Listener(
            finder, options.timeout, own, self._take, self._tell_broken, self._tell_returned
        )
        self.hints = RedisHints(prefix, self._listener, self._publisher, dropped)
        self._mailboxes = frozenset(own)
        self._wires = (
            self._listener.wire,
            self._publisher.wire,
            self.devices.calls.wire,
            self.turns.calls.wire,
        )
        self._telling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect to the other nodes. Raises `StoreError`."""
        self._listener.wire.start()
        self._publisher.wire.start()
        self.devices.calls.wire.start()
        self.turns.start()
        for wire in self._wires:
            try:
                async with asyncio.timeout(self._options.timeout):
                    await wire.opened()
            except TimeoutError:
                pass
            if not wire.is_open:
                raise StoreError(f"cluster.url: {place(self._options.url)}: {wire.error}")
        await self.hints.followed()
        try:
            await self.members.claim()
            if self.members.has_earlier:
                await self.devices.begin()
        except (RedisError, OSError) as error:
            raise StoreError(f"cluster.url: {place(self._options.url)}: {error}") from None
        self.members.start()

    @property
    def is_connected(self) -> bool:
        """Whether Redis can be reached now, as far as is known."""
        return all(wire.is_open for wire in self._wires)

    def _take(self, channel: bytes, value: bytes, pattern: bytes | None) -> None:
        if pattern is None and channel in self._mailboxes:
            self.mail.take(value)
        else:
            self.hints.take(channel, value, pattern)

    def on_hint(self, received: Callable[[Hint], None]) -> None:
        """See `Backplane`."""
        self.hints.on_hint(received)

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
        if self._telling is not None:
            self._telling.cancel()
        self._telling = asyncio.get_running_loop().create_task(self._tell_again())

    async def _tell_again(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._options.timeout):
                await self.devices.calls.wire.opened()
        await self.devices.tell_again()
        for returned in self._returned:
            returned()

    async def close(self) -> None:
        """See `Backplane`."""
        if self._telling is not None:
            self._telling.cancel()
        self.mail.close()
        await self.turns.close()
        await self.devices.close()
        await self.members.close()
        await self._listener.wire.close()
        await self._publisher.close()
        await self._client.aclose()


async def open_backplane(options: RedisOptions, name: str, dropped: Counter[str]) -> RedisBackplane:
    """Connect to Redis. Raises `StoreError`."""
    backplane = RedisBackplane(await open_client(options), options, name, dropped)
    try:
        await backplane.start()
    except BaseException:
        await backplane.close()
        raise
    return backplane
