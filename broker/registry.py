"""The connected sessions of a node: attach, take-over, detach, and saving their cursors."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from broker.delivery.away import AwaySessions
from broker.delivery.feeder import Feeder
from broker.delivery.online import Online
from broker.delivery.subscriptions import Subscriptions
from broker.domain.errors import RefusedError, StoreError
from broker.domain.publication import Publication
from broker.domain.topics import inbox_topic
from broker.metrics import Metrics
from broker.ports import (
    Arrival,
    Forgotten,
    Identity,
    Moved,
    PacketIds,
    Principal,
    Saved,
    SessionKey,
    SessionState,
)
from broker.publish.pipeline import Pipeline
from broker.publish.publisher import Publisher
from broker.session.roles import Limits, Outbox
from broker.session.session import Session
from broker.states import States
from broker.tasks import Tasks

_TAKEN_OVER = "taken over by a new connection"


class Client(Protocol):
    """A connection as the registry sees it."""

    @property
    def session(self) -> Session | None: ...

    @property
    def publisher(self) -> Publisher: ...

    @property
    def will(self) -> Publication | None: ...

    @property
    def outbox(self) -> Outbox: ...

    @property
    def peer(self) -> tuple[str, int]:
        """The address and port of the other end."""
        ...

    @property
    def closed(self) -> bool: ...

    def adopt(self, session: Session) -> None:
        """Serve this session from now on."""
        ...

    def release_session(self) -> None:
        """Serve no session from now on."""
        ...

    def drop_will(self) -> None:
        """Publish no will when the connection ends."""
        ...

    def renew(self, identity: Identity) -> bool:
        """Go on with a fresh token, see `Principal.renew`. Returns whether it did."""
        ...

    def close(self, reason: str) -> None:
        """End the connection. It is detached from the registry before this returns."""
        ...


class RegistryLimits(Limits, Protocol):
    """What a user may hold."""

    connections_per_user: int
    sessions_per_user: int


class RegistryClock(Protocol):
    """See `broker.clock.SystemClock`."""

    def now_ms(self) -> int: ...

    def steady_ms(self) -> int: ...


class Registry:
    """Gives connections their sessions.

    `devices_changed(user, devices)` is called when the number of a user's devices changes, `arrived` when a
    device has acknowledged entries of its user's inbox. `may_receive(principal, topic)`, if not None,
    screens the messages that were queued while a client was away."""

    def __init__(
        self,
        online: Online[Client],
        away: AwaySessions,
        subscriptions: Subscriptions,
        feeder: Feeder,
        states: States,
        pipeline: Pipeline,
        metrics: Metrics,
        limits: RegistryLimits,
        clock: RegistryClock,
        devices_changed: Callable[[str, int], None],
        arrived: Callable[[Arrival], None],
        may_receive: Callable[[Principal, str], Awaitable[bool]] | None = None,
    ) -> None:
        self._online = online
        self._away = away
        self._subscriptions = subscriptions
        self._feeder = feeder
        self._states = states
        self._pipeline = pipeline
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        self._devices_changed = devices_changed
        self._arrived = arrived
        self._may_receive = may_receive
        self._attaching: dict[SessionKey, Client] = {}
        # The session whose client is being accepted, if its stored state has not been restored yet.
        self._unrestored: Session | None = None
        # False while no anonymous session is stored, which is the rule: deleting one need not be tried.
        self._anonymous_kept = True
        self.epoch = 0
        """The number of changes of accounts and tokens."""
        self._to_save: set[Session] = set()
        self._wills = Tasks()

    async def load(self) -> None:
        """At the start: queue messages for the stored sessions from now on. Raises `StoreError`."""
        self._anonymous_kept = bool(await self._states.store.subscriptions(""))
        await self._away.load()

    def accounts_changed(self) -> None:
        """An account or token changed: clients that are being authenticated now must be so again."""
        self.epoch += 1

    # --- Watcher, for sessions -------------------------------------------------------

    def lagging(self, session: Session) -> None:
        """A session has tails that are behind."""
        self._feeder.lagging(session)

    def moved(self, session: Session) -> None:
        """A session has cursors to save."""
        self._to_save.add(session)

    def ids_wanted(self, session: Session) -> None:
        """Messages of a session wait for packet ids to be reserved."""
        if session.persistent and session.connected and (ids := session.window.reserve_ids()) is not None:
            self._save_moved([Moved(session.key, {}, ids)], [(session, ids)])

    def dropped(self, reason: str) -> None:
        """A session dropped a message."""
        self._metrics.dropped[reason] += 1

    # --- attaching -------------------------------------------------------------------

    async def attach(
        self, client: Client, key: SessionKey, clean: bool, accept: Callable[[bool], None]
    ) -> bool:
        """Give a connection its session; an older connection of the session is closed (take-over)
        [MQTT-3.1.4-2]. `accept(session_present)` is called before anything is sent.

        Returns False, and attaches nothing, if an account or token changed since the client was
        authenticated: it must be authenticated again.

        Raises:
            RefusedError: `quota`: the user has as many connections or persistent sessions as allowed.
            StoreError: the session could not be loaded.
        """
        state = None
        if not clean or key in self._attaching or key in self._online:
            state = await self._claim(client, key, clean)
        if client.closed:
            return True
        if client.publisher.epoch != self.epoch:
            return False
        if key.user and len(self._online.of(key.user)) >= self._limits.connections_per_user:
            raise self._too_many("connections_per_user")
        session = self._open(client, key, clean)
        self._unrestored = None if state is None else session
        # After a restore both sides begin anew, as neither knows which packet ids the other one holds
        # [MQTT-3.2.2-3]. Subscriptions and cursors stay.
        accept(state is not None and state.lost is None)
        self._unrestored = None
        if client.closed:  # `accept` closes a client whose credential has expired by now
            return True
        if key.user:
            self._devices_changed(key.user, self._online.add_device(key, client))
        if clean:
            self._away.wake(key)
            if key.user or self._anonymous_kept:
                self._states.forget(Forgotten(key.user, key.client_id))
        elif state is not None:
            session.restore(state)
            self._subscriptions.adopt(session, self._away.wake(key))
            await self._subscriptions.resume(session)
        return True

    async def _claim(self, client: Client, key: SessionKey, clean: bool) -> SessionState | None:
        """The stored state of a session, which no other connection has on return. Closes the client if a
        newer connection gets the session."""
        # Several connections of one session may be here at a time. Only the newest gets it.
        self._attaching[key] = client
        self._away.begin_load(key)
        try:
            return await self._load(client, key, clean)
        finally:
            if self._attaching.get(key) is client:
                del self._attaching[key]
                self._away.end_load(key)
            else:
                client.close(_TAKEN_OVER)

    async def _load(self, client: Client, key: SessionKey, clean: bool) -> SessionState | None:
        while not client.closed:
            if (old := self._online.get(key)) is not None:
                old.close(_TAKEN_OVER)
            self._away.begin_load(key)
            state = None if clean else await self._states.load(key)
            if state is None and not clean and key.user:
                await self._check_sessions(key)
            if state is not None and self._may_receive is not None:
                state = await self._screened(state, client.publisher.principal, self._may_receive)
            if self._attaching.get(key) is not client:
                return None  # a newer connection of this session is attaching
            # While the state was loaded, a message may have been queued for the session, or another
            # connection may have attached and gone. Then the state is out of date: load it again.
            if key not in self._online and not self._away.is_out_of_date(key):
                return state
        return None

    async def _check_sessions(self, key: SessionKey) -> None:
        """A new persistent session is about to begin: check that its user may have one more."""
        most = self._limits.sessions_per_user
        # Those that are connected are perhaps not stored yet; some of them may go while the store is asked.
        client_ids = self._persistent_of(key.user)
        client_ids |= set(await self._states.store.client_ids(key.user, most + 1))
        client_ids |= self._persistent_of(key.user)
        if len(client_ids - {key.client_id}) >= most:
            raise self._too_many("sessions_per_user")

    def _persistent_of(self, user: str) -> set[str]:
        """The client ids of the persistent sessions of a user that are connected."""
        return {
            key.client_id
            for key, client in self._online.of(user).items()
            if client.session is not None and client.session.persistent
        }

    def _too_many(self, limit: str) -> RefusedError:
        self._metrics.limited[limit] += 1
        return RefusedError("quota", f"too many for one user (limits.{limit})")

    def _open(self, client: Client, key: SessionKey, clean: bool) -> Session:
        self._anonymous_kept = self._anonymous_kept or not (clean or key.user)
        identity = client.publisher.principal.identity
        outbox, now = client.outbox, self._clock.steady_ms()
        session = Session(key, identity, not clean, outbox, self._limits, self, now)
        client.adopt(session)
        self._online.add(key, client)
        self._metrics.totals["connections"] += 1
        return session

    @staticmethod
    async def _screened(
        state: SessionState, principal: Principal, may_receive: Callable[[Principal, str], Awaitable[bool]]
    ) -> SessionState:
        """The state without the queued messages that plugins do not let the client receive."""
        # A released message was delivered already: only its PUBREL handshake is left.
        queue = [
            message
            for message in state.queue
            if message.released or await may_receive(principal, message.topic)
        ]
        return replace(state, queue=queue)

    # --- detaching -------------------------------------------------------------------

    def detach(self, client: Client, reason: str) -> None:
        """A connection ended: save its session if it is persistent, and publish its will if it has one
        [MQTT-3.1.2-8]."""
        session = client.session
        if session is None:
            return
        client.release_session()
        key = session.key
        devices = self._online.remove(key)
        self._report(session)
        self._subscriptions.release(session)
        self._to_save.discard(session)
        self._metrics.disconnects[reason] += 1
        if session.persistent and session is not self._unrestored:
            saved = Saved(key, session.snapshot(), self._clock.steady_ms())
            self._states.submit([saved], patient=True)
            self._away.stand_in(key, session.filters)
        if client.will is not None:
            self._publish_will(client.publisher, client.will)
            client.drop_will()
        if devices is not None:
            self._devices_changed(key.user, devices)

    def _publish_will(self, publisher: Publisher, will: Publication) -> None:
        # The right was checked at CONNECT and may have been lost since.
        publisher.forget_permits()
        asked = self._pipeline.publish(publisher, will, None)
        if asked is not None:
            self._wills.spawn(asked)

    async def publish_wills(self) -> None:
        """Wait until the pipeline has taken all wills."""
        await self._wills.finish()

    # --- while connected -------------------------------------------------------------

    def save_cursors(self) -> None:
        """Save the cursors that moved since the last call, with new packet ids where those reserved run
        out, and delete sessions that clean ones replaced.

        Not at every PUBACK: a cursor saved late only means that some entries are sent again (QoS 1)."""
        self._states.flush()
        if not self._to_save:
            return
        moved, reserved = [], []
        for session in self._to_save:
            if session.persistent:
                cursors = session.logs.to_save
                ids = session.window.reserve_ids() if session.window.ids.is_low else None
                if ids is not None:
                    reserved.append((session, ids))
                if cursors or ids is not None:
                    moved.append(Moved(session.key, cursors, ids))
            session.logs.saved()
            self._report(session)
        self._to_save.clear()
        if moved:
            self._save_moved(moved, reserved)

    def _save_moved(self, moved: Sequence[Moved], reserved: Sequence[tuple[Session, PacketIds]]) -> None:
        self._states.submit(moved, partial(self._ids_reserved, reserved))

    def _ids_reserved(self, reserved: Sequence[tuple[Session, PacketIds]], error: StoreError | None) -> None:
        for session, ids in reserved:
            session.window.ids.reserved(None if error else ids.reserved)
            if not session.connected:
                continue
            if error is None:
                session.refill()
            else:
                self._to_save.add(session)  # `save_cursors` tries again

    def _report(self, session: Session) -> None:
        """Report the inbox entries acknowledged since the last report."""
        tail = session.tails.get(inbox_topic(session.key.user))
        if tail is not None and (acknowledged := tail.report()) is not None:
            self._arrived(Arrival(session.key.user, *acknowledged))

    def expires_in(self, client: Client) -> float | None:
        """Seconds until the connection's credential expires, or None if it does not."""
        expires_at = client.publisher.principal.identity.expires_at
        return None if expires_at is None else expires_at - self._clock.now_ms() / 1000

    def renew(self, client_id: str, identity: Identity) -> bool:
        """A connected client goes on with a fresh token of the same user. Returns False if it is not
        connected, or was not authenticated by a token."""
        client = self._online.get(SessionKey(identity.user, client_id))
        return client is not None and client.renew(identity)

    def kick(self, user: str, reason: str, whom: Callable[[Identity], bool] = lambda _: True) -> int:
        """End those connections of a user whose identity `whom` selects. Returns their number."""
        clients = [
            client for client in self._online.of(user).values() if whom(client.publisher.principal.identity)
        ]
        for client in clients:
            client.drop_will()  # the user may have lost the right to publish it
            client.close(reason)
        return len(clients)
