"""The connections of a node as the others know them: who is connected where, and who takes a session over."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec

from broker.cluster.counting import Counting
from broker.cluster.wills import Wills
from broker.delivery.away import Sessions
from broker.delivery.interest import Interest
from broker.delivery.moves import Moves
from broker.domain.errors import StoreError
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.ports import Backplane, Claimed, Enqueued, QueuedMessage, SessionKey, Whereabouts
from broker.publish.publisher import Publisher
from broker.registry import Arriving as Expected
from broker.registry import Client
from broker.session.session import Session
from broker.tasks import Tasks

logger = logging.getLogger(__name__)

_RELEASE_SECONDS = 1.0
"""For how long a connection waits until the earlier one has been ended elsewhere. If its node is dead, cut
off or frozen, the claim in the store keeps it from writing."""
_LIFE_SECONDS = 45.0
"""A node that has not answered for this long is gone."""
_STALE_SECONDS = 10.0
"""For so long a stand-in stays whose session has been claimed."""
_AT_ONCE = 1000

_RELEASE = "release"
_WOKEN = "woken"
_AWAY = "away"
_MISSED = "missed"
_REPAIR = "repair"

_encode = msgspec.msgpack.encode


class _Release(msgspec.Struct, frozen=True, array_like=True):
    """A connection of a session that is to end."""

    key: SessionKey
    connection_id: str


class _Woken(msgspec.Struct, frozen=True, array_like=True):
    """A persistent session that is connected."""

    key: SessionKey
    epoch: int


class _Away(msgspec.Struct, frozen=True, array_like=True):
    """A persistent session that is away, with its filters."""

    key: SessionKey
    epoch: int
    filters: list[Subscription]


class _Missed(msgspec.Struct, frozen=True, array_like=True):
    """A message that was not queued for a session, because this epoch has passed."""

    key: SessionKey
    epoch: int
    message: QueuedMessage


_decode_release = msgspec.msgpack.Decoder(_Release).decode
_decode_woken = msgspec.msgpack.Decoder(_Woken).decode
_decode_away = msgspec.msgpack.Decoder(_Away).decode
_decode_missed = msgspec.msgpack.Decoder(_Missed).decode


class Arriving:
    """See `broker.registry.Arriving`."""

    def __init__(self, key: SessionKey, device: Whereabouts) -> None:
        self.key = key
        self.device = device
        self.connection_id = device.connection_id
        self.devices: int | None = None
        self.instead_of: Whereabouts | None = None
        self.is_superseded = False
        self._ended = asyncio.Event()

    def placed(self, devices: int, instead_of: Whereabouts | None) -> None:
        """The other nodes know of it."""
        self.devices, self.instead_of = devices, instead_of

    async def supersede(self) -> None:
        """A newer connection has come to another node: wait until this one has given up."""
        self.is_superseded = True
        await self._ended.wait()

    def end(self) -> None:
        """It has its session, or has given up."""
        self._ended.set()


class StandIns(Protocol):
    """See `broker.delivery.away.AwaySessions`."""

    @property
    def keys(self) -> Collection[SessionKey]: ...

    def has(self, key: SessionKey) -> bool: ...

    def held(self, filters: Mapping[str, Subscription]) -> Mapping[str, int]: ...

    def stand_in(
        self, key: SessionKey, filters: Mapping[str, Subscription], epoch: int | None = None
    ) -> None: ...

    def wake(self, key: SessionKey) -> object: ...

    async def renew(self, connected: Sessions) -> None: ...

    def wake_before(self, key: SessionKey, epoch: int) -> None: ...


class Connections(Protocol):
    """See `broker.registry.Registry`."""

    def publish_will(self, publisher: Publisher, will: Publication) -> Awaitable[None] | None: ...

    def let_go(self, key: SessionKey) -> None: ...

    async def all_stored(self) -> None: ...

    def is_attaching(self, key: SessionKey, epoch: int, message: QueuedMessage) -> bool: ...

    def deliver_missed(self, key: SessionKey, epoch: int, message: QueuedMessage) -> None: ...


class Others:
    """See `broker.registry.Elsewhere`. `online()` are the users whose retained presence says that they
    are connected; `set_offline` is called for those whose node has died."""

    def __init__(
        self,
        backplane: Backplane,
        away: StandIns,
        counting: Counting,
        wills: Wills,
        online: Callable[[], Awaitable[list[str]]],
        set_offline: Callable[[str], None],
        tasks: Tasks,
        moves: Moves,
        interest: Interest,
    ) -> None:
        self._moves = moves
        self._interest = interest
        self._lingering: dict[tuple[SessionKey, int], list[str]] = {}
        """Epoch of a session that has ended here -> the filters that are followed until all nodes know."""
        self._backplane = backplane
        self._away = away
        self._counting = counting
        self._wills = wills
        self._online = online
        self._set_offline = set_offline
        self._tasks = tasks
        self._connections: dict[SessionKey, str] = {}
        """Session -> the id of its connection here."""
        self._arriving: dict[str, Arriving] = {}
        """By connection id."""
        mail = backplane.mail
        mail.on(_WOKEN, lambda _node, body: self._woken(body))
        mail.on_question(_AWAY, self._gone_away)
        mail.on(_REPAIR, lambda _node, _body: self._repair_soon())
        backplane.on_return(self._repair_soon)
        backplane.members.on_gone(self._clean_up)

    def serve(self, connections: Connections) -> None:
        """Let other nodes take sessions over."""
        self._is_attaching = connections.is_attaching
        self._deliver_missed = connections.deliver_missed
        self._publish_will = connections.publish_will

        async def release(_node: str, body: bytes) -> bytes:
            asked = _decode_release(body)
            if (arriving := self._arriving.get(asked.connection_id)) is not None:
                await arriving.supersede()
            elif self._connections.get(asked.key) == asked.connection_id:
                connections.let_go(asked.key)
            await connections.all_stored()
            return b"released"

        def missed(_node: str, body: bytes) -> None:
            found = _decode_missed(body)
            self.take_missed(found.key, found.epoch, found.message)

        self._backplane.mail.on_question(_RELEASE, release)
        self._backplane.mail.on(_MISSED, missed)

    async def start(self) -> None:
        """At the start, when the stand-ins are made: sessions that are connected elsewhere need none."""
        users = list({key.user for key in self._away.keys})
        for first in range(0, len(users), _AT_ONCE):
            found = await self._backplane.devices.of(users[first : first + _AT_ONCE])
            for user, devices in (found or {}).items():
                for device in devices:
                    self._away.wake(SessionKey(user, device.client_id))

    async def leave(self, user: str, left: Callable[[], None]) -> None:
        """See `Counting`."""
        await self._counting.leave(user, left)

    def tell_claim(self, user: str, status: str) -> None:
        """See `Counting`."""
        self._counting.tell_claim(user, status)

    async def connected(self, users: Sequence[str]) -> Collection[str]:
        """Those of some users who are connected, as far as is known. If it is not known, all of them."""
        connected: list[str] = []
        for first in range(0, len(users), _AT_ONCE):
            asked = users[first : first + _AT_ONCE]
            found = await self._backplane.devices.of(asked)
            connected += asked if found is None else found
        return set(connected)

    async def connected_sessions(self, keys: Sequence[SessionKey]) -> list[SessionKey] | None:
        """Those of some sessions that are connected, to whatever node. None: unknown."""
        users = list({key.user for key in keys})
        connected: set[SessionKey] = set()
        for first in range(0, len(users), _AT_ONCE):
            found = await self._backplane.devices.of(users[first : first + _AT_ONCE])
            if found is None:
                return None
            connected |= {SessionKey(user, each.client_id) for user in found for each in found[user]}
        return [key for key in keys if key in connected]

    async def _clean_up(self, node: str) -> None:
        """A node is gone: its devices are not connected any more, and its wills are due. What is done may be
        done again, by whoever finds that this node has died meanwhile."""
        await self._wills.publish_of(node, self._publish_will)
        remaining = await self._backplane.devices.forget(node)
        if remaining is None:
            raise StoreError(f"the devices of {node} cannot be removed now")
        for user, devices in remaining.items():
            if devices:
                self._counting.count(user, devices)
        # Also those of whom an earlier attempt has only removed the devices.
        users = await self._online()
        connected = await self.connected(users)
        for user in users:
            if user not in connected and not self._counting.is_here(user):
                self._set_offline(user)
        self._backplane.mail.send(None, _REPAIR, b"")
        await self.repair()

    def _repair_soon(self) -> None:
        self._tasks.spawn(self.repair())

    async def repair(self) -> None:
        """Mail may have been missed: make the stand-ins of all sessions that are away again."""
        try:
            await self._away.renew(self._connections)
            await self.start()
        except StoreError as error:
            logger.error("the stand-ins of sessions that are away: %s", error)

    # --- Elsewhere, for the registry --------------------------------------------------

    async def arrive(self, key: SessionKey, since: int) -> Arriving:
        """See `Elsewhere`."""
        connection_id = secrets.token_hex(8)
        arriving = Arriving(key, Whereabouts(key.client_id, self._backplane.name, connection_id, since))
        self._arriving[connection_id] = arriving
        try:
            placed = await self._backplane.devices.connected(key.user, arriving.device)
            if placed is not None:
                arriving.placed(placed.devices, placed.instead_of)
            other = arriving.instead_of
            if other is not None and other.gateway != self._backplane.name:
                await self._ask_to_release(key, other)
        except BaseException:
            self.withdrawn(arriving)
            raise
        return arriving

    async def _ask_to_release(self, key: SessionKey, other: Whereabouts) -> None:
        body = _encode(_Release(key, other.connection_id))
        if await self._backplane.mail.ask(other.gateway, _RELEASE, body, _RELEASE_SECONDS) is None:
            logger.warning(
                "node %s does not give back the session %r of %r", other.gateway, key.client_id, key.user
            )

    def attached(self, session: Session, arriving: Expected, client: Client) -> None:
        """See `Elsewhere`."""
        self._arriving.pop(arriving.connection_id).end()
        self._connections[session.key] = arriving.connection_id
        if client.will is not None:
            self._wills.keep(arriving.connection_id, client.publisher, client.will)
        self._counting.count(session.key.user, arriving.devices)

    def withdrawn(self, arriving: Expected) -> None:
        """See `Elsewhere`."""
        if (given_up := self._arriving.pop(arriving.connection_id, None)) is not None:
            given_up.end()
            self._tasks.spawn(self._tell_disconnected(given_up.key, given_up.connection_id))

    def resumed(self, session: Session) -> None:
        """See `Elsewhere`."""
        if session.epoch is not None and self._away.held(session.filters):
            self._backplane.mail.send(None, _WOKEN, _encode(_Woken(session.key, session.epoch)))

    def claimed(self, key: SessionKey, claimed: Claimed) -> None:
        """See `Elsewhere`."""
        state = claimed.state
        if state is not None and (state.queue or self._away.held(state.filters)):
            state.queue[:] = self._moves.claimed(key, claimed.epoch, state.queue)

    def detaching(self, session: Session) -> None:
        """See `Elsewhere`."""
        if session.epoch is None or not session.persistent:
            return
        if filters := self._away.held(session.filters):
            self._lingering[session.key, session.epoch] = list(filters)
            self._moves.linger(session.key)
            for each in filters:
                self._interest.add(each)

    def detached(self, session: Session) -> None:
        """See `Elsewhere`."""
        key = session.key
        if (connection_id := self._connections.pop(key, None)) is not None:
            self._wills.drop(connection_id)
            self._tasks.spawn(self._tell_disconnected(key, connection_id))

    def stored(self, key: SessionKey, epoch: int | None, filters: Mapping[str, Subscription]) -> None:
        """See `Elsewhere`."""
        if epoch is not None and self._away.has(key):
            self._tasks.spawn(self._tell_away(_Away(key, epoch, list(filters.values()))))
        elif epoch is not None:
            self._known(key, epoch)

    async def _tell_away(self, away: _Away) -> None:
        """Tell all nodes. A node that does not answer is dead, or must be within this time."""
        members = await self._backplane.members.all()
        mail, own, body = self._backplane.mail, self._backplane.name, _encode(away)
        asked = [member.name for member in members or () if member.name != own]
        await asyncio.gather(*(mail.ask(name, _AWAY, body, _LIFE_SECONDS) for name in asked))
        self._known(away.key, away.epoch)

    def _known(self, key: SessionKey, epoch: int) -> None:
        filters = self._lingering.pop((key, epoch), None)
        if filters is not None:
            self._moves.known(key)
            for each in filters:
                self._interest.discard(each)

    def missed(self, change: Enqueued) -> None:
        """See `Elsewhere`."""
        if change.epoch is not None:
            self.take_missed(change.key, change.epoch, change.message)
            body = _encode(_Missed(change.key, change.epoch, change.message))
            self._backplane.mail.send(None, _MISSED, body)
            # Whoever has claimed the session tells when the stand-in is not needed any more, unless it has
            # died, or the session was deleted.
            wake = partial(self._away.wake_before, change.key, change.epoch + 1)
            asyncio.get_running_loop().call_later(_STALE_SECONDS, wake)

    def take_missed(self, key: SessionKey, epoch: int, message: QueuedMessage) -> None:
        """See `Elsewhere`. Whoever holds the next epoch has to take it."""
        if not self._is_attaching(key, epoch, message) and self._moves.takes(key, epoch + 1, message.id):
            self._deliver_missed(key, epoch + 1, message)

    async def _tell_disconnected(self, key: SessionKey, connection_id: str) -> None:
        devices = await self._backplane.devices.disconnected(key.user, key.client_id, connection_id)
        self._counting.count(key.user, devices)

    # --- from other nodes -------------------------------------------------------------

    def _woken(self, body: bytes) -> None:
        woken = _decode_woken(body)
        self._away.wake_before(woken.key, woken.epoch)

    async def _gone_away(self, _node: str, body: bytes) -> bytes:
        away = _decode_away(body)
        self._away.wake_before(away.key, away.epoch)
        if away.key not in self._connections and not self._away.has(away.key):
            self._away.stand_in(away.key, {each.topic_filter: each for each in away.filters}, away.epoch)
        return b"known"
