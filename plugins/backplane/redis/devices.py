"""Where users are connected.

The hash `<prefix>online:users` has, for each user who is connected, a JSON object: client id -> `gateway`,
`connection_id` and `connected_at` of the device. Whatever goes through all users does so in small steps.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence

import msgspec

from broker.ports import Placed, Whereabouts

from .calls import Calls
from .finder import Finder
from .options import RedisOptions

logger = logging.getLogger(__name__)

_AT_ONCE = 500
_ASKED_AT_ONCE = 1000


class _Device(msgspec.Struct, frozen=True):
    gateway: str
    connection_id: str
    connected_at: int


_decode = msgspec.json.Decoder(dict[str, _Device]).decode
_decode_one = msgspec.json.Decoder(_Device).decode

Entry = tuple[str, str, str]
"""User, client id, connection id."""


class RedisDevices:
    """See `broker.ports.Devices`. `name` is this node's."""

    def __init__(self, options: RedisOptions, name: str) -> None:
        self._name = name
        self._key = f"{options.prefix}online:users"
        scripts = ("connected", "disconnected", "devices")
        self.calls = Calls(Finder(options, self._key), options.timeout, scripts, self._opened)
        self._here: dict[tuple[str, str], Whereabouts] = {}
        """The devices of this node, for a Redis that has lost them."""
        self._left_over: set[str] = set()
        """Users who were connected to this node's earlier process."""
        self._was_open = False
        self._telling: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """This node has no devices any more."""
        if self._telling is not None:
            self._telling.cancel()
        try:
            await self._remove([(*key, device.connection_id) for key, device in self._here.items()])
        except OSError as error:
            logger.debug("leaving: %s", error)
        await self.calls.wire.close()

    async def connected(self, user: str, device: Whereabouts) -> Placed | None:
        """See `Devices`."""
        self._here[user, device.client_id] = device
        try:
            count, before = await self.calls.run("connected", self._key, "", *_told(user, device))
        except OSError as error:
            logger.debug("telling of a device: %s", error)
            return None
        earlier = _whereabouts(device.client_id, _decode_one(before)) if before else None
        if earlier is not None and earlier.connection_id == device.connection_id:
            earlier = None
        return Placed(count, earlier)

    async def disconnected(self, user: str, client_id: str, connection_id: str) -> int | None:
        """See `Devices`."""
        here = self._here.get((user, client_id))
        if here is not None and here.connection_id == connection_id:
            del self._here[user, client_id]
        try:
            [count] = await self.calls.run("disconnected", self._key, user, client_id, connection_id)
            return int(count)
        except OSError as error:
            logger.debug("telling of a device: %s", error)
            return None

    async def of(self, users: Sequence[str]) -> dict[str, list[Whereabouts]] | None:
        """See `Devices`."""
        if not users:
            return {}
        try:
            values = await self.calls.call("HMGET", self._key, *users)
        except OSError as error:
            logger.debug("asking for devices: %s", error)
            return None
        return {
            user: [_whereabouts(client_id, each) for client_id, each in _decode(value).items()]
            for user, value in zip(users, values, strict=True)
            if value
        }

    async def forget(self, gateway: str) -> dict[str, int] | None:
        """See `Devices`. Of this node's own name, the devices of its earlier process are meant."""
        if gateway == self._name:
            return await self._forgotten()
        try:
            return await self._remove_all(gateway)
        except OSError as error:
            logger.debug("forgetting the devices of %s: %s", gateway, error)
            return None

    # --- this node's own --------------------------------------------------------------

    async def begin(self) -> None:
        """An earlier process of this node has not removed its devices. `forget` tells of them. Raises
        `OSError`."""
        self._left_over |= (await self._remove_all(self._name)).keys()

    async def _forgotten(self) -> dict[str, int] | None:
        users = list(self._left_over)
        remaining: dict[str, int] = {}
        for first in range(0, len(users), _ASKED_AT_ONCE):
            asked = users[first : first + _ASKED_AT_ONCE]
            found = await self.of(asked)
            if found is None:
                return None
            remaining |= {user: len(found.get(user, ())) for user in asked}
        self._left_over.clear()
        return remaining

    def _opened(self) -> None:
        if self._was_open:
            self._tell_soon()
        self._was_open = True

    def _tell_soon(self) -> asyncio.Task[None]:
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell_all())
        return self._telling

    async def tell_again(self) -> None:
        """Redis may have lost devices of this node, or not know that they have gone. Without a connection,
        they are told when there is one."""
        if self.calls.wire.is_open:
            await asyncio.wait({self._tell_soon()})

    async def _tell_all(self) -> None:
        try:
            keys = list(self._here)
            for first in range(0, len(keys), _AT_ONCE):
                chunk = [key for key in keys[first : first + _AT_ONCE] if key in self._here]
                told = [each for key in chunk for each in _told(key[0], self._here[key])]
                await self.calls.run("connected", self._key, "again", *told)
            async for entries in self._entries(self._name):
                await self._remove([entry for entry in entries if not self._is_here(entry)])
        except OSError as error:
            logger.debug("telling of all devices: %s", error)

    def _is_here(self, entry: Entry) -> bool:
        user, client_id, connection_id = entry
        device = self._here.get((user, client_id))
        return device is not None and device.connection_id == connection_id

    # --- all users --------------------------------------------------------------------

    async def _remove_all(self, gateway: str) -> dict[str, int]:
        remaining: dict[str, int] = {}
        async for entries in self._entries(gateway):
            remaining |= await self._remove(entries)
        return remaining

    async def _entries(self, gateway: str) -> AsyncIterator[list[Entry]]:
        """The devices of a gateway, in steps."""
        cursor = "0"
        while True:
            answer = await self.calls.run("devices", self._key, gateway, cursor, str(_AT_ONCE))
            cursor, *fields = [each.decode() for each in answer]
            if fields:
                yield list(zip(fields[::3], fields[1::3], fields[2::3], strict=True))
            if cursor == "0":
                return

    async def _remove(self, entries: Sequence[Entry]) -> dict[str, int]:
        """Returns how many devices the users have then."""
        remaining: dict[str, int] = {}
        for first in range(0, len(entries), _AT_ONCE):
            chunk = entries[first : first + _AT_ONCE]
            fields = [field for entry in chunk for field in entry]
            counts = await self.calls.run("disconnected", self._key, *fields)
            remaining |= {entry[0]: int(count) for entry, count in zip(chunk, counts, strict=True)}
        return remaining


def _told(user: str, device: Whereabouts) -> tuple[str, str, str]:
    at = {"connection_id": device.connection_id, "connected_at": device.connected_at}
    return user, device.client_id, json.dumps({"gateway": device.gateway, **at})


def _whereabouts(client_id: str, device: _Device) -> Whereabouts:
    return Whereabouts(client_id, device.gateway, device.connection_id, device.connected_at)
