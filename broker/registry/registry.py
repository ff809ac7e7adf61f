"""Gives connections their sessions, and takes them back."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial

from broker.delivery.away import AwaySessions
from broker.delivery.feeder import Feeder
from broker.delivery.online import Online
from broker.delivery.subscriptions import Subscriptions
from broker.domain.errors import StoreError
from broker.domain.publication import Publication
from broker.domain.topics import inbox_topic
from broker.metrics import Metrics
from broker.ports import (
    Arrival,
    Enqueued,
    Forgotten,
    Identity,
    Moved,
    PacketIds,
    Principal,
    QueuedMessage,
    Saved,
    SessionKey,
    SessionState,
)
from broker.publish.pipeline import Pipeline
from broker.publish.publisher import Publisher
from broker.registry.loading import Loaded, Loader, is_superseded
from broker.registry.roles import Arriving, Client, Elsewhere, RegistryClock, RegistryLimits
from broker.session.session import Session
from broker.states import Stale, States
from broker.tasks import Tasks
from broker.wire.encoder import Outgoing

_TAKEN_OVER = "taken over by a new connection"


class Registry:
    """Gives connections their sessions.

    `devices_changed(user, devices)` is called when the number of a user's devices changes, `arrived` when a
    device has acknowledged entries of its user's inbox. `may_receive(principal, topic)`, if not None,
    screens the messages that were queued while a client was away. `elsewhere` are the other nodes; None if
    there are none."""

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
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._elsewhere = elsewhere
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
        self._loader = Loader(online, away, states, metrics, limits, clock, may_receive)
        states.on_stale(self._stale)
        self._attaching: dict[SessionKey, Client] = {}
        # The session whose client is being accepted, if its stored state has not been restored yet.
        self._unrestored: Session | None = None
        # False while no anonymous session is stored, which is the rule: deleting one need not be tried.
        self._anonymous_kept = True
        self.epoch = 0
        """The number of changes of accounts and tokens."""
        self._to_save: set[Session] = set()
        # Of sessions that are being claimed: messages that other nodes could not queue any more.
        self._missed: dict[SessionKey, list[tuple[int, QueuedMessage]]] = {}
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
            self._save_moved([Moved(session.key, {}, ids, session.epoch)], [(session, ids)])

    def dropped(self, reason: str) -> None:
        """A session dropped a message."""
        self._metrics.dropped[reason] += 1

    # --- attaching -------------------------------------------------------------------

    async def attach(
        self, client: Client, key: SessionKey, clean: bool, accept: Callable[[bool], None]
    ) -> bool:
        """Give a connection its session; an older connection of the session is closed (take-over)
        [MQTT-3.1.4-2], on whatever node. `accept(session_present)` is called before anything is sent.

        Returns False, and attaches nothing, if an account or token changed since the client was
        authenticated: it must be authenticated again.

        Raises:
            RefusedError: `quota`: the user has as many connections or persistent sessions as allowed.
            StoreError: the session could not be loaded.
        """
        if not (clean and self._elsewhere is None) or key in self._attaching or key in self._online:
            return await self._take_over(client, key, clean, accept)
        return self._begin_clean(client, key, accept)

    def _begin_clean(self, client: Client, key: SessionKey, accept: Callable[[bool], None]) -> bool:
        """Open a clean session, as most are: nothing has to be loaded, and nobody to be ended."""
        if client.closed:
            return True
        if client.publisher.epoch != self.epoch:
            return False
        self._loader.check_connections(key.user, None)
        self._open(client, key, True, None)
        accept(False)
        if not client.closed:
            if key.user:
                self._devices_changed(key.user, self._online.add_device(key, client))
            self._replace(key)
        return True

    def _replace(self, key: SessionKey) -> None:
        """A clean session replaces a stored one [MQTT-3.1.2-6]."""
        self._away.wake(key)
        if key.user or self._anonymous_kept:
            self._states.forget(Forgotten(key.user, key.client_id))

    async def _attach(
        self,
        client: Client,
        key: SessionKey,
        clean: bool,
        loaded: Loaded,
        arriving: Arriving | None,
        accept: Callable[[bool], None],
    ) -> bool:
        """Open the session, which no other connection has."""
        if client.closed:
            self._abandon(key, loaded)
            return True
        if client.publisher.epoch != self.epoch:
            self._abandon(key, loaded)
            return False
        self._loader.check_connections(key.user, None if arriving is None else arriving.devices)
        session = self._open(client, key, clean, loaded.epoch)
        await self._begin(client, session, loaded.state, accept, arriving)
        return True

    async def _take_over(
        self, client: Client, key: SessionKey, clean: bool, accept: Callable[[bool], None]
    ) -> bool:
        # Several connections of one session may be here at a time. Only the newest gets it.
        self._attaching[key] = client
        self._away.begin_load(key)
        arriving = None
        missed: Sequence[tuple[int, QueuedMessage]] = ()
        try:
            try:
                if self._elsewhere is not None:
                    arriving = await self._elsewhere.arrive(key, self._clock.steady_ms())
                loaded = await self._load(client, key, clean, arriving)
            finally:
                is_newest = self._attaching.get(key) is client
                if is_newest:
                    del self._attaching[key]
                    self._away.end_load(key)
                missed = self._missed.pop(key, ()) if is_newest else ()
            if not is_newest or is_superseded(arriving):
                client.close(_TAKEN_OVER)
            return await self._attach(client, key, clean, loaded, arriving, accept)
        finally:
            if self._elsewhere is not None and arriving is not None:
                self._elsewhere.withdrawn(arriving)  # unless it is attached by now
                for epoch, message in missed:
                    self._elsewhere.take_missed(key, epoch, message)

    def _abandon(self, key: SessionKey, loaded: Loaded) -> None:
        """A session was claimed, and its client has gone meanwhile: it is away, with its new epoch."""
        if self._elsewhere is not None and loaded.state is not None and key not in self._online:
            self._away.stand_in(key, loaded.state.filters, loaded.epoch)
            self._elsewhere.stored(key, loaded.epoch, loaded.state.filters)

    async def _begin(
        self,
        client: Client,
        session: Session,
        state: SessionState | None,
        accept: Callable[[bool], None],
        arriving: Arriving | None,
    ) -> None:
        key = session.key
        self._unrestored = None if state is None else session
        # After a restore both sides begin anew, as neither knows which packet ids the other one holds
        # [MQTT-3.2.2-3]. Subscriptions and cursors stay.
        accept(state is not None and state.lost is None)
        self._unrestored = None
        if client.closed:  # `accept` closes a client whose credential has expired by now
            return
        if key.user:
            self._devices_changed(key.user, self._online.add_device(key, client))
        if self._elsewhere is not None and arriving is not None:
            self._elsewhere.attached(session, arriving, client)
        if not session.persistent and arriving is None:
            self._replace(key)
        elif not session.persistent:
            self._away.wake(key)  # what was stored has gone with the claim
        elif state is not None:
            session.restore(state)
            held = self._away.wake(key)
            # Perhaps this node has not been told yet that the session was away.
            self._subscriptions.adopt(session, held or self._away.held(session.filters))
            await self._subscriptions.resume(session)
        if self._elsewhere is not None and session.connected:
            self._elsewhere.resumed(session)

    async def _load(self, client: Client, key: SessionKey, clean: bool, arriving: Arriving | None) -> Loaded:
        while not client.closed and self._attaching.get(key) is client and not is_superseded(arriving):
            if (old := self._online.get(key)) is not None:
                old.close(_TAKEN_OVER)
            self._away.begin_load(key)
            if self._elsewhere is None:
                loaded = await self._loader.load(key, client, clean)
            else:
                loaded = await self._loader.claim(key, client, clean, self._elsewhere)
            # While the state was loaded, a message may have been queued for the session, or another
            # connection may have attached and gone. Then the state is out of date: load it again. What was
            # queued for a session that is claimed is in its state, or was missed.
            if key not in self._online and (arriving is not None or not self._away.is_out_of_date(key)):
                return loaded
        return Loaded()

    def _open(self, client: Client, key: SessionKey, clean: bool, epoch: int | None) -> Session:
        self._anonymous_kept = self._anonymous_kept or not (clean or key.user)
        identity = client.publisher.principal.identity
        outbox, now = client.outbox, self._clock.steady_ms()
        session = Session(key, identity, not clean, outbox, self._limits, self, now, epoch)
        client.adopt(session)
        self._online.add(key, client)
        self._metrics.totals["connections"] += 1
        return session

    def _stale(self, change: Stale) -> None:
        """A change has written nothing, because another node has claimed the session."""
        if isinstance(change, Enqueued):
            if self._elsewhere is not None:
                self._elsewhere.missed(change)
            return
        client = self._online.get(change.key)
        if client is not None and client.session is not None and client.session.epoch == change.epoch:
            client.session.taken()
            client.close(_TAKEN_OVER)

    # --- detaching -------------------------------------------------------------------

    def detach(self, client: Client, reason: str) -> None:
        """A connection ended: save its session if it is persistent, and publish its will if it has one
        [MQTT-3.1.2-8]."""
        session = client.session
        if session is None:
            return
        client.release_session()
        key = session.key
        if self._elsewhere is not None:
            self._elsewhere.detaching(session)
        devices = self._online.remove(key)
        self._report(session)
        self._subscriptions.release(session)
        self._to_save.discard(session)
        self._metrics.disconnects[reason] += 1
        is_kept = session.persistent and session is not self._unrestored
        if is_kept:
            saved = Saved(key, session.snapshot(), self._clock.steady_ms(), session.epoch)
            self._away.stand_in(key, session.filters, session.epoch)
            if self._elsewhere is None:
                self._states.submit([saved], patient=True)
            else:
                self._states.submit([saved], partial(self._stored, session), patient=True)
        if client.will is not None:
            if (asked := self.publish_will(client.publisher, client.will)) is not None:
                self._wills.spawn(asked)
            client.drop_will()
        if devices is not None:
            self._devices_changed(key.user, devices)
        if self._elsewhere is not None:
            self._elsewhere.detached(session, is_stored=not is_kept)

    def _stored(self, session: Session, _error: StoreError | None) -> None:
        if self._elsewhere is not None:
            self._elsewhere.stored(session.key, session.epoch, session.filters)

    def publish_will(self, publisher: Publisher, will: Publication) -> Coroutine[None, None, None] | None:
        """Publish a will. Returns what must be awaited for that, if anything."""
        # The right was checked at CONNECT and may have been lost since.
        publisher.forget_permits()
        return self._pipeline.publish(publisher, will, None)

    async def publish_wills(self) -> None:
        """Wait until the pipeline has taken all wills."""
        await self._wills.finish()

    # --- for other nodes ---------------------------------------------------------------

    def let_go(self, key: SessionKey) -> None:
        """Another node takes the session over: end its connection here."""
        if (client := self._online.get(key)) is not None:
            client.close(_TAKEN_OVER)

    async def all_stored(self) -> None:
        """Wait until the sessions that have been detached are stored. Raises `StoreError`."""
        await self._states.save(())

    def is_attaching(self, key: SessionKey, epoch: int, message: QueuedMessage) -> bool:
        """Whether a session is being claimed here. Then a message that was missed under an epoch waits until
        that is done."""
        if key not in self._attaching:
            return False
        self._missed.setdefault(key, []).append((epoch, message))
        return True

    def deliver_missed(self, key: SessionKey, epoch: int, message: QueuedMessage) -> None:
        """This node holds an epoch of a session, for which a message comes late. It is sent if the session is
        connected under this epoch, and else queued."""
        client = self._online.get(key)
        if client is not None and client.session is not None and client.session.epoch == epoch:
            client.session.offer(Outgoing(message), message.qos)
        else:
            self._states.submit([self._away.queue_missed(key, message, epoch)], patient=True)

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
                    moved.append(Moved(session.key, cursors, ids, session.epoch))
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
