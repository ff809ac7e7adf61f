"""Where users are connected.

The hash `<prefix>online:users` has, for each user who is connected, a JSON object: client id -> `gateway`,
`connection_id` and `connected_at` of the device.
"""

import json
import logging
from collections.abc import Awaitable, Sequence
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from broker.ports import Placed, Whereabouts

from .scripts import script

logger = logging.getLogger(__name__)

_AT_ONCE = 500


class _Device(msgspec.Struct, frozen=True):
    gateway: str
    connection_id: str
    connected_at: int


_decode = msgspec.json.Decoder(dict[str, _Device]).decode
_decode_one = msgspec.json.Decoder(_Device).decode


class RedisDevices:
    """See `broker.ports.Devices`."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self._client = client
        self._key = f"{prefix}online:users"
        self._connected = client.register_script(script("connected"))
        self._disconnected = client.register_script(script("disconnected"))
        self._forget = client.register_script(script("forget"))
        self._here: dict[tuple[str, str], Whereabouts] = {}
        """The devices of this node, for a Redis that has lost them."""

    async def connected(self, user: str, device: Whereabouts) -> Placed | None:
        """See `Devices`."""
        self._here[user, device.client_id] = device
        at = {"connection_id": device.connection_id, "connected_at": device.connected_at}
        value = json.dumps({"gateway": device.gateway, **at})
        try:
            count, before = await cast(
                Awaitable[Any], self._connected(keys=[self._key], args=[user, device.client_id, value])
            )
        except (RedisError, OSError) as error:
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
        arguments = [user, client_id, connection_id]
        try:
            return int(await cast(Awaitable[Any], self._disconnected(keys=[self._key], args=arguments)))
        except (RedisError, OSError) as error:
            logger.debug("telling of a device: %s", error)
            return None

    async def of(self, users: Sequence[str]) -> dict[str, list[Whereabouts]] | None:
        """See `Devices`."""
        if not users:
            return {}
        try:
            values = await cast(Awaitable[Any], self._client.hmget(self._key, list(users)))
        except (RedisError, OSError) as error:
            logger.debug("asking for devices: %s", error)
            return None
        return {
            user: [_whereabouts(client_id, each) for client_id, each in _decode(value).items()]
            for user, value in zip(users, values, strict=True)
            if value
        }

    async def forget(self, gateway: str) -> dict[str, int] | None:
        """See `Devices`."""
        remaining: dict[str, int] = {}
        try:
            users = [user async for user, _ in self._client.hscan_iter(self._key)]
            for first in range(0, len(users), _AT_ONCE):
                chunk = users[first : first + _AT_ONCE]
                counts = await cast(Awaitable[Any], self._forget(keys=[self._key], args=[gateway, *chunk]))
                counted = zip(chunk, counts, strict=True)
                remaining |= {user.decode(): count for user, count in counted if count >= 0}
        except (RedisError, OSError) as error:
            logger.debug("forgetting the devices of %s: %s", gateway, error)
            return None
        return remaining

    async def tell_again(self) -> None:
        """Redis may have lost the devices of this node: write them again."""
        for (user, _), device in list(self._here.items()):
            await self.connected(user, device)


def _whereabouts(client_id: str, device: _Device) -> Whereabouts:
    return Whereabouts(client_id, device.gateway, device.connection_id, device.connected_at)
