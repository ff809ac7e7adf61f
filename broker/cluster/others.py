"""The connections of a node as the others know them: who is connected where, and who takes a session over."""

import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from broker.domain.errors import StoreUnavailableError
from broker.domain.subscription import Subscription
from broker.ports import Backplane, SessionKey, Whereabouts
from broker.session.session import Session
from broker.tasks import Tasks

logger = logging.getLogger(__name__)

_RELEASE_SECONDS = 2.0
_AT_ONCE = 1000

_RELEASE = "release"
_WOKEN = "woken"
_AWAY = "away"

_encode = msgspec.msgpack.encode


class _Away(msgspec.Struct, frozen=True, array_like=True):
    """A persistent session that is away, with its filters."""

    user: str
    client_id: str
    filters: list[Subscription]


_decode_key = msgspec.msgpack.Decoder(SessionKey).decode
_decode_away = msgspec.msgpack.Decoder(_Away).decode


class Presence(Protocol):
    """See `broker.status.presence.Presence`."""

    def devices_changed(self, user: str, devices: int, here: int | None = None) -> None: ...


class StandIns(Protocol):
    """See `broker.delivery.away.AwaySessions`."""

    @property
    def keys(self) -> Collection[SessionKey]: ...

    def stand_in(self, key: SessionKey, filters: Mapping[str, Subscription]) -> None: ...

    def wake(self, key: SessionKey) -> object: ...


class Others:
    """See `broker.registry.Elsewhere`. `presence` is told how many devices a user has on all nodes;
    `here(user)` counts those of this node, which must do while the other nodes cannot be reached."""

    def __init__(
        self,
        backplane: Backplane,
        away: StandIns,
        presence: Presence,
        here: Callable[[str], int],
        tasks: Tasks,
    ) -> None:
        self._backplane = backplane
        self._away = away
        self._presence = presence
        self._here = here
        self._tasks = tasks
        self._connections: dict[SessionKey, str] = {}
        """Session -> the id of its connection here."""
        mail = backplane.mail
        mail.on(_WOKEN, lambda _node, body: self._woken(body))
        mail.on(_AWAY, lambda _node, body: self._gone_away(body))
        backplane.members.on_gone(self._clean_up)

    def serve(self, let_go: Callable[[SessionKey], Awaitable[None]]) -> None:
        """Let other nodes take sessions over."""

        async def release(_node: str, body: bytes) -> bytes:
            await let_go(_decode_key(body))
            return b"released"

        self._backplane.mail.on_question(_RELEASE, release)

    async def start(self) -> None:
        """At the start, when the stand-ins are made: sessions that are connected elsewhere need none."""
        users = list({key.user for key in self._away.keys})
        for first in range(0, len(users), _AT_ONCE):
            found = await self._backplane.devices.of(users[first : first + _AT_ONCE])
            for user, devices in (found or {}).items():
                for device in devices:
                    self._away.wake(SessionKey(user, device.client_id))

    async def connected(self, users: Sequence[str]) -> Collection[str]:
        """Those of some users who are connected, as far as is known. If it is not known, all of them."""
        connected: list[str] = []
        for first in range(0, len(users), _AT_ONCE):
            asked = users[first : first + _AT_ONCE]
            found = await self._backplane.devices.of(asked)
            connected += asked if found is None else found
        return set(connected)

    async def _clean_up(self, node: str) -> None:
        """A node is gone: its devices are not connected any more."""
        remaining = await self._backplane.devices.forget(node)
        if remaining is None:
            raise StoreUnavailableError(f"the devices of {node} cannot be removed now")
        for user, devices in remaining.items():
            self._count(user, devices)

    # --- Elsewhere, for the registry --------------------------------------------------

    async def release(self, key: SessionKey) -> None:
        """See `Elsewhere`."""
        found = await self._backplane.devices.of([key.user])
        for device in (found or {}).get(key.user, ()):
            if device.client_id == key.client_id and device.gateway != self._backplane.name:
                await self._ask_to_release(key, device.gateway)

    async def _ask_to_release(self, key: SessionKey, node: str) -> None:
        answer = await self._backplane.mail.ask(node, _RELEASE, _encode(key), _RELEASE_SECONDS)
        if answer is None and node in await self._living():
            raise StoreUnavailableError(f"node {node} does not give the session back")

    async def _living(self) -> set[str]:
        members = await self._backplane.members.all()
        return {member.name for member in members or ()}

    def attached(self, session: Session) -> None:
        """See `Elsewhere`."""
        key = session.key
        connection_id = self._connections[key] = secrets.token_hex(8)
        device = Whereabouts(key.client_id, self._backplane.name, connection_id, session.since)
        if session.persistent:
            self._backplane.mail.send(None, _WOKEN, _encode(key))
        self._tasks.spawn(self._tell_connected(key, device))

    async def _tell_connected(self, key: SessionKey, device: Whereabouts) -> None:
        placed = await self._backplane.devices.connected(key.user, device)
        self._count(key.user, None if placed is None else placed.devices)
        other = None if placed is None else placed.instead_of
        if other is not None and other.gateway != self._backplane.name:
            # Both nodes attached the session at the same moment. The later one has it.
            await self._backplane.mail.ask(other.gateway, _RELEASE, _encode(key), _RELEASE_SECONDS)

    def detached(self, session: Session) -> None:
        """See `Elsewhere`."""
        key = session.key
        if session.persistent:
            away = _Away(key.user, key.client_id, list(session.filters.values()))
            self._backplane.mail.send(None, _AWAY, _encode(away))
        self._tasks.spawn(self._tell_disconnected(key, self._connections.pop(key)))

    async def _tell_disconnected(self, key: SessionKey, connection_id: str) -> None:
        self._count(
            key.user, await self._backplane.devices.disconnected(key.user, key.client_id, connection_id)
        )

    def _count(self, user: str, devices: int | None) -> None:
        if user:
            here = self._here(user)
            self._presence.devices_changed(user, here if devices is None else devices, here)

    async def leave(self, user: str, left: Callable[[], None]) -> None:
        """The grace period of a user ends: call `left`, unless the user is connected to another node by
        now."""
        found = await self._backplane.devices.of([user])
        if devices := len((found or {}).get(user, ())):
            self._count(user, devices)
        else:
            left()

    # --- from other nodes -------------------------------------------------------------

    def _woken(self, body: bytes) -> None:
        self._away.wake(_decode_key(body))

    def _gone_away(self, body: bytes) -> None:
        away = _decode_away(body)
        filters = {each.topic_filter: each for each in away.filters}
        self._away.stand_in(SessionKey(away.user, away.client_id), filters)
