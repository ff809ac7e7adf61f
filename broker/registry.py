"""The sessions of a node: attaching, taking over, detaching, and what is saved of them meanwhile."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from broker.delivery.away import AwaySessions
from broker.delivery.feeder import Feeder
from broker.delivery.online import Online
from broker.delivery.subscriptions import Subscriptions
from broker.domain.publication import Publication
from broker.domain.topics import inbox_topic
from broker.metrics import Metrics
from broker.ports import Arrival, Forgotten, Identity, Moved, Principal, Saved, SessionKey, SessionState
from broker.publish.pipeline import Pipeline
from broker.publish.publisher import Publisher
from broker.session.roles import Limits, Outbox
from broker.session.session import Session
from broker.states import States
from broker.tasks import Tasks

_TAKEN_OVER = "taken over by a new connection"


class Client(Protocol):
    """A connection, as the registry sees it."""

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
        """Serve none any more."""
        ...

    def drop_will(self) -> None:
        """Nothing is to be published when the connection ends."""
        ...

    def close(self, reason: str) -> None:
        """End the connection; it leaves the registry before this returns."""
        ...


class Registry:
    """Gives connections their sessions. `devices_changed(user, devices)` is told of every change,
    `arrived` of what devices acknowledged of their users' inboxes; `may_receive(principal, topic)`, if
    plugins want that, is asked about what was queued while a client was away."""

    def __init__(
        self,
        online: Online[Client],
        away: AwaySessions,
        subscriptions: Subscriptions,
        feeder: Feeder,
        states: States,
        pipeline: Pipeline,
        metrics: Metrics,
        limits: Limits,
        now_ms: Callable[[], int],
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
        self._now_ms = now_ms
        self._devices_changed = devices_changed
        self._arrived = arrived
        self._may_receive = may_receive
        self._attaching: dict[SessionKey, Client] = {}
        # Anonymous clients rarely have sessions that are kept: most have none to look for.
        self._anonymous_kept = True
        self.epoch = 0
        """Counts changes of accounts."""
        self._to_save: set[Session] = set()
        self._wills = Tasks()

    async def load(self) -> None:
        """At start: stand in for the sessions that are kept. Raises `StoreError`."""
        self._anonymous_kept = bool(await self._states.store.subscriptions(""))
        await self._away.load()

    def accounts_changed(self) -> None:
        """Who is being authenticated now must be so anew."""
        self.epoch += 1

    # --- Watcher, for sessions -------------------------------------------------------

    def lagging(self, session: Session) -> None:
        """A session has tails that are behind."""
        self._feeder.lagging(session)

    def moved(self, session: Session) -> None:
        """A session has cursors to save."""
        self._to_save.add(session)

    def dropped(self, reason: str) -> None:
        """A session gave a message up."""
        self._metrics.dropped[reason] += 1

    # --- attaching -------------------------------------------------------------------

    async def attach(
        self, client: Client, key: SessionKey, clean: bool, accept: Callable[[bool], None]
    ) -> bool:
        """Give a connection its session, taking it over from an older connection
        [MQTT-3.1.4-2]. `accept(session_present)` is called before anything is sent to it.

        Returns False, and gives no session, if an account changed since the client was authenticated:
        it must be authenticated anew.

        Raises:
            StoreError: the session could not be loaded.
        """
        self._attaching[key] = client
        self._away.begin_load(key)
        try:
            state = await self._load(client, key, clean)
        finally:
            is_newest = self._attaching.get(key) is client
            if is_newest:
                del self._attaching[key]
                self._away.end_load(key)
        if not is_newest:
            client.close(_TAKEN_OVER)
        if client.closed:
            return True
        if client.publisher.epoch != self.epoch:
            return False
        session = self._open(client, key, clean)
        accept(state is not None)
        if client.closed:  # its credential ended in between
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

    async def _load(self, client: Client, key: SessionKey, clean: bool) -> SessionState | None:
        while not client.closed:
            if (old := self._online.get(key)) is not None:
                old.close(_TAKEN_OVER)
            self._away.begin_load(key)
            state = None if clean else await self._states.load(key)
            if state is not None and self._may_receive is not None:
                state = await self._screened(state, client.publisher.principal, self._may_receive)
            if self._attaching.get(key) is not client:
                return None  # a newer connection of this session has come
            # While the store was asked, a message may have been queued for the session.
            if key not in self._online and not self._away.is_out_of_date(key):
                return state
        return None

    def _open(self, client: Client, key: SessionKey, clean: bool) -> Session:
        self._anonymous_kept = self._anonymous_kept or not (clean or key.user)
        identity = client.publisher.principal.identity
        session = Session(key, identity, not clean, client.outbox, self._limits, self)
        client.adopt(session)
        self._online.add(key, client)
        self._metrics.totals["connections"] += 1
        return session

    @staticmethod
    async def _screened(
        state: SessionState, principal: Principal, may_receive: Callable[[Principal, str], Awaitable[bool]]
    ) -> SessionState:
        """The state without what plugins do not let the client have of its queue."""
        queue = [
            message
            for message in state.queue
            if message.released or await may_receive(principal, message.topic)
        ]
        return SessionState(state.filters, state.cursors, state.inflight, state.received, queue)

    # --- detaching -------------------------------------------------------------------

    def detach(self, client: Client, reason: str) -> None:
        """A connection ended: publish its will, if it still has one, and keep what is to be kept."""
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
        if session.persistent:
            self._states.submit([Saved(key, session.snapshot(), self._now_ms())])
            self._away.stand_in(key, session.filters)
        if client.will is not None:
            self._publish_will(client.publisher, client.will)
            client.drop_will()
        if devices is not None:
            self._devices_changed(key.user, devices)

    def _publish_will(self, publisher: Publisher, will: Publication) -> None:
        # The right is asked for anew: it may have been lost since CONNECT.
        publisher.forget_permits()
        asked = self._pipeline.publish(publisher, will, None)
        if asked is not None:
            self._wills.spawn(asked)

    async def publish_wills(self) -> None:
        """Let the wills under way come through."""
        await self._wills.finish()

    # --- meanwhile -------------------------------------------------------------------

    def save_cursors(self) -> None:
        """Store the cursors that moved since the last time, and drop replaced sessions."""
        self._states.flush()
        if not self._to_save:
            return
        moved = []
        for session in self._to_save:
            if session.persistent and (cursors := session.logs.to_save):
                moved.append(Moved(session.key, cursors))
            session.logs.saved()
            self._report(session)
        self._to_save.clear()
        if moved:
            self._states.submit(moved)

    def _report(self, session: Session) -> None:
        tail = session.tails.get(inbox_topic(session.key.user))
        if tail is not None and (acknowledged := tail.report()) is not None:
            self._arrived(Arrival(session.key.user, *acknowledged))

    def expires_in(self, client: Client) -> float | None:
        """Seconds until a connection's credential ends, or None if it does not."""
        expires_at = client.publisher.principal.identity.expires_at
        return None if expires_at is None else expires_at - self._now_ms() / 1000

    def kick(self, user: str, reason: str, whom: Callable[[Identity], bool] = lambda _: True) -> int:
        """End the connections of a user, or those that are meant; returns how many there were."""
        clients = [
            client for client in self._online.of(user).values() if whom(client.publisher.principal.identity)
        ]
        for client in clients:
            client.drop_will()  # it would speak for somebody who may not any more
            client.close(reason)
        return len(clients)
