"""The broker's side of the bridge port, for all nodes of a cluster.

Messages enter on this node. What concerns connections is asked of every node that has them.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from broker.ports import Backplane, BrokerPort, Device, Identity

_SECONDS = 2.0

_KICK, _CONNECTIONS, _RENEW = "kick", "connections", "renew"

_encode = msgspec.msgpack.encode


class _Asked(msgspec.Struct, frozen=True, array_like=True):
    """Which connections: see `BrokerPort.connections`."""

    user: str
    after: str
    limit: int


class _Renewed(msgspec.Struct, frozen=True, array_like=True):
    client_id: str
    identity: Identity


_decode_asked = msgspec.msgpack.Decoder(_Asked).decode
_decode_renewed = msgspec.msgpack.Decoder(_Renewed).decode
_decode_devices = msgspec.msgpack.Decoder(list[Device]).decode
_decode_number = msgspec.msgpack.Decoder(int).decode


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
        self.stats = local.stats

        async def kick(_node: str, body: bytes) -> bytes:
            return _encode(await local.kick(msgspec.msgpack.decode(body, type=str)))

        async def connections(_node: str, body: bytes) -> bytes:
            asked = _decode_asked(body)
            return _encode(await local.connections(asked.user, asked.after, asked.limit))

        async def renew(_node: str, body: bytes) -> bytes:
            renewed = _decode_renewed(body)
            return _encode(await local.renew(renewed.client_id, renewed.identity))

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
        here, others = await asyncio.gather(
            self._local.connections(user, after, limit),
            self._ask_all(_CONNECTIONS, _encode(_Asked(user, after, limit))),
        )
        found = [*here, *(device for answer in others for device in _decode_devices(answer))]
        return sorted(found, key=lambda device: device.sort_key)[:limit]

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
