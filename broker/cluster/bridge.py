"""The broker's side of the bridge port, for all nodes of a cluster.

Messages enter on this node. What concerns connections is asked of every node that has them.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from broker.ports import Backplane, BrokerPort, Device, Identity

_SECONDS = 2.0

_KICK, _CONNECTIONS, _RENEW, _PUSH, _STATS = "kick", "connections", "renew", "push", "stats"

_encode = msgspec.msgpack.encode


class _Asked(msgspec.Struct, frozen=True, array_like=True):
    """Which connections: see `BrokerPort.connections`."""

    user: str
    after: str
    limit: int


class _Renewed(msgspec.Struct, frozen=True, array_like=True):
    client_id: str
    identity: Identity


class _Pushed(msgspec.Struct, frozen=True, array_like=True):
    """An event for users who are connected to a node."""

    users: list[str]
    event: dict[str, Any]


_decode_asked = msgspec.msgpack.Decoder(_Asked).decode
_decode_renewed = msgspec.msgpack.Decoder(_Renewed).decode
_decode_devices = msgspec.msgpack.Decoder(list[Device]).decode
_decode_number = msgspec.msgpack.Decoder(int).decode
_decode_pushed = msgspec.msgpack.Decoder(_Pushed).decode
_decode_users = msgspec.msgpack.Decoder(list[str]).decode
_decode_stats = msgspec.msgpack.Decoder(dict[str, int]).decode


class ClusterBridge:
    """See `broker.ports.BrokerPort`. `local` is this node's own."""

    def __init__(self, local: BrokerPort, backplane: Backplane) -> None:
        self._local = local
        self._backplane = backplane
        self.publish = local.publish
        self.append = local.append
        self.pace = local.pace
        self.emit = local.emit
        self.watch = local.watch

        async def kick(_node: str, body: bytes) -> bytes:
            return _encode(await local.kick(msgspec.msgpack.decode(body, type=str)))

        async def connections(_node: str, body: bytes) -> bytes:
            asked = _decode_asked(body)
            return _encode(await self._connections(asked))

        async def renew(_node: str, body: bytes) -> bytes:
            renewed = _decode_renewed(body)
            return _encode(await local.renew(renewed.client_id, renewed.identity))

        async def push(_node: str, body: bytes) -> bytes:
            pushed = _decode_pushed(body)
            return _encode(await local.push(pushed.users, pushed.event))

        async def stats(_node: str, _body: bytes) -> bytes:
            return _encode(await local.stats())

        backplane.mail.on_question(_PUSH, push)
        backplane.mail.on_question(_STATS, stats)
        backplane.mail.on_question(_KICK, kick)
        backplane.mail.on_question(_CONNECTIONS, connections)
        backplane.mail.on_question(_RENEW, renew)

    async def devices(self, users: Sequence[str]) -> dict[str, list[str]]:
        """See `BrokerPort`. While the other nodes cannot be reached, those of this node."""
        found = await self._backplane.devices.of(users)
        if found is None:
            return await self._local.devices(users)
        return {user: [device.client_id for device in devices] for user, devices in found.items()}

    async def connections(self, user: str, after: str, limit: int) -> list[Device]:
        """See `BrokerPort`."""
        asked = _Asked(user, after, limit)
        here, others = await asyncio.gather(
            self._connections(asked), self._ask_all(_CONNECTIONS, _encode(asked))
        )
        found = [*here, *(device for answer in others for device in _decode_devices(answer))]
        return sorted(found, key=lambda device: device.sort_key)[:limit]

    async def _connections(self, asked: _Asked) -> list[Device]:
        """Those of this node, with its name."""
        name = self._backplane.name
        found = await self._local.connections(asked.user, asked.after, asked.limit)
        return [msgspec.structs.replace(device, node=name) for device in found]

    async def push(self, users: Sequence[str], event: Mapping[str, Any]) -> list[str]:
        """See `BrokerPort`. While it is unknown who is connected where, each node is asked."""
        found, own = await self._backplane.devices.of(users), self._backplane.name
        if found is None:
            here, all_others = await asyncio.gather(
                self._local.push(users, event), self._ask_all(_PUSH, _encode(_Pushed([*users], {**event})))
            )
            answers = [here, *map(_decode_users, all_others)]
        else:
            at: dict[str, dict[str, None]] = {}
            for user, devices in found.items():
                for device in devices:
                    at.setdefault(device.gateway, {})[user] = None
            answers = await asyncio.gather(
                *(self._push_at(gateway, [*whom], event, own) for gateway, whom in at.items())
            )
        reached = {user for answer in answers for user in answer}
        return [user for user in users if user in reached]

    async def _push_at(self, gateway: str, users: list[str], event: Mapping[str, Any], own: str) -> list[str]:
        if gateway == own:
            return await self._local.push(users, event)
        body = _encode(_Pushed(users, {**event}))
        answer = await self._backplane.mail.ask(gateway, _PUSH, body, _SECONDS)
        return [] if answer is None else _decode_users(answer)

    async def stats(self) -> dict[str, int]:
        """See `BrokerPort`. The uptime is this node's."""
        here, others = await asyncio.gather(self._local.stats(), self._ask_all(_STATS, b""))
        total = Counter(here)
        for answer in others:
            total.update(_decode_stats(answer))
        return {**total, "uptime_seconds": here["uptime_seconds"]}

    async def kick(self, user: str) -> int:
        """See `BrokerPort`."""
        here, others = await asyncio.gather(self._local.kick(user), self._ask_all(_KICK, _encode(user)))
        return here + sum(map(_decode_number, others))

    async def renew(self, client_id: str, identity: Identity) -> bool:
        """See `BrokerPort`."""
        if await self._local.renew(client_id, identity):
            return True
        found = await self._backplane.devices.of([identity.user])
        for device in (found or {}).get(identity.user, ()):
            if device.client_id == client_id and device.gateway != self._backplane.name:
                body = _encode(_Renewed(client_id, identity))
                answer = await self._backplane.mail.ask(device.gateway, _RENEW, body, _SECONDS)
                return answer == _encode(True)
        return False

    async def _ask_all(self, kind: str, body: bytes) -> list[bytes]:
        """The answers of the other nodes that live. One that does not answer has died, or is about to."""
        members = await self._backplane.members.all()
        mail, own = self._backplane.mail, self._backplane.name
        answers = await asyncio.gather(
            *(mail.ask(member.name, kind, body, _SECONDS) for member in members or () if member.name != own)
        )
        return [answer for answer in answers if answer is not None]
