"""Who is connected: sessions, their take-over, and what is kept of them in between."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Protocol

import msgspec

from broker.delivery.away import Away
from broker.delivery.router import Router
from broker.delivery.screened import Screened
from broker.delivery.subscriber import Subscriber
from broker.delivery.subscriptions import Subscriptions
from broker.domain.errors import StoreError
from broker.domain.topics import Kind, inbox_topic, is_wild, matches, overlaps, parse_topic
from broker.metrics import Metrics
from broker.ports import (
    Arrival,
    Enqueued,
    Forgotten,
    Identity,
    Moved,
    Principal,
    QueuedMessage,
    Saved,
    SessionKey,
    SessionState,
    StateChange,
)
from broker.publish.pipeline import Pipeline, Publisher
from broker.session.roles import Limits, Outbox
from broker.session.session import Session
from broker.states import States
from broker.wire.encoder import Outgoing
from broker.wire.packets import Publish, Will

logger = logging.getLogger(__name__)


_TAKEN_OVER = "taken over by a new connection"


class Event(msgspec.Struct, frozen=True):
    """An event of a user, and the sessions that were connected when it happened."""

    user: str
    topic: str
    payload: bytes
    had_it: frozenset[SessionKey]


class Client(Protocol):
    """A connection, as the registry sees it."""

    session: Session | None
    publisher: Publisher
    will: Will | None

    @property
    def outbox(self) -> Outbox: ...

    @property
    def closed(self) -> bool: ...

    def close(self, reason: str) -> None:
        """End the connection; it leaves the registry before this returns."""
        ...


class Registry:
    """The sessions of a node. `devices_changed(user, devices)` is told of every change."""

    def __init__(
        self,
        router: Router[Subscriber],
        subscriptions: Subscriptions,
        states: States,
        pipeline: Pipeline,
        metrics: Metrics,
        limits: Limits,
        open_filters: list[str],
        now_ms: Callable[[], int],
    ) -> None:
        self._router = router
        self._subscriptions = subscriptions
        self._states = states
        self._pipeline = pipeline
        self._metrics = metrics
        self._limits = limits
        self._open_filters = open_filters
        self._now_ms = now_ms
        self.online: dict[SessionKey, Client] = {}
        self.users: dict[str, dict[SessionKey, Client]] = {}
        self.devices_changed: Callable[[str, int], None]
        self.lagging: Callable[[Session], None]
        self.arrived: Callable[[Arrival], None] = lambda _: None
        """Told of what devices acknowledged of their users' inboxes."""
        self.may_receive: Callable[[Principal, str], Awaitable[bool]] | None = None
        """Asked about what was queued while the client was away, if plugins want that."""
        self._away: dict[SessionKey, Away] = {}
        # Anonymous clients rarely have sessions that are kept: most have none to look for.
        self._anonymous_kept = True
        self.epoch = 0
        """Counts changes of accounts."""
        self._attaching: dict[SessionKey, Client] = {}
        # Those of `_attaching` for which something was queued since they were last read.
        self._out_of_date: set[SessionKey] = set()
        self._to_save: set[Session] = set()
        self._wills: set[asyncio.Future[None]] = set()

    # --- Watcher, for sessions -------------------------------------------------------

    def moved(self, session: Session) -> None:
        """A session has cursors to save."""
        self._to_save.add(session)

    def dropped(self, reason: str) -> None:
        """A session gave a message up."""
        self._metrics.dropped[reason] += 1

    # --- connections -----------------------------------------------------------------

    async def attach(
        self, client: Client, key: SessionKey, clean: bool, accept: Callable[[bool], None]
    ) -> bool:
        """Give a connection its session, taking it over from an older connection
        [MQTT-3.1.4-2]. `accept(session_present)` is called before anything is sent to it.

        Returns False, and does nothing, if an account changed since the client was authenticated: it
        must be authenticated anew.

        Raises:
            StoreError: the session could not be loaded.
        """
        self._attaching[key] = client
        try:
            state = await self._load(client, key, clean)
        finally:
            is_newest = self._attaching.get(key) is client
            if is_newest:
                del self._attaching[key]
                self._out_of_date.discard(key)
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
            devices = self.users.setdefault(key.user, {})
            devices[key] = client
            self.devices_changed(key.user, len(devices))
        if clean:
            self._wake(key)
            if key.user or self._anonymous_kept:
                self._states.forget(Forgotten(key.user, key.client_id))
        elif state is not None:
            session.restore(state)
            self._subscriptions.adopt(session, self._wake(key))
            await self._subscriptions.resume(session)
        return True

    async def _load(self, client: Client, key: SessionKey, clean: bool) -> SessionState | None:
        while not client.closed:
            if (old := self.online.get(key)) is not None:
                old.close(_TAKEN_OVER)
            away = self._away.get(key)
            added = away.added if away is not None else 0
            self._out_of_date.discard(key)
            state = None if clean else await self._states.load(key)
            if state is not None and self.may_receive is not None:
                await self._screen(state, client.publisher.principal, self.may_receive)
            if self._attaching.get(key) is not client:
                return None  # a newer connection of this session has come
            # While the store was asked, a message may have been queued: then what was loaded is out
            # of date.
            unchanged = self._away.get(key) is away and (away is None or away.added == added)
            if key not in self.online and unchanged and key not in self._out_of_date:
                return state
        return None

    def _open(self, client: Client, key: SessionKey, clean: bool) -> Session:
        self._anonymous_kept = self._anonymous_kept or not (clean or key.user)
        identity = client.publisher.principal.identity
        session = client.session = Session(key, identity, not clean, client.outbox, self._limits, self)
        self.online[key] = client
        self._metrics.connections += 1
        return session

    @staticmethod
    async def _screen(
        state: SessionState, principal: Principal, may_receive: Callable[[Principal, str], Awaitable[bool]]
    ) -> None:
        """Leave out of the queue what plugins do not let the client have."""
        state.queue = [
            message
            for message in state.queue
            if message.released or await may_receive(principal, message.topic)
        ]

    def detach(self, client: Client, reason: str) -> None:
        """A connection ended: publish its will, if it still has one, and keep what is to be kept."""
        session = client.session
        if session is None:
            return
        client.session = None
        key = session.key
        del self.online[key]
        self._report(session)
        self._subscriptions.release(session)
        self._to_save.discard(session)
        self._metrics.disconnects[reason] += 1
        if session.persistent:
            self._states.submit([Saved(key, session.snapshot(), self._now_ms())])
            self._stand_in(key, session.filters)
        if client.will is not None:
            self._publish_will(client.publisher, client.will)
            client.will = None
        devices = self.users.get(key.user)
        if devices is not None and devices.pop(key, None) is not None:
            if not devices:
                del self.users[key.user]
            self.devices_changed(key.user, len(devices))

    def _publish_will(self, publisher: Publisher, will: Will) -> None:
        # The right is asked for anew: it may have been lost since CONNECT.
        publisher.forget_permits()
        packet = Publish(will.topic, will.payload, will.qos, 0, will.retain)
        asked = self._pipeline.publish(publisher, packet, None)
        if asked is not None:
            task = asyncio.ensure_future(asked)
            self._wills.add(task)
            task.add_done_callback(self._wills.discard)

    async def publish_wills(self) -> None:
        """Let the wills under way come through."""
        if self._wills:
            await asyncio.wait(self._wills)

    # --- sessions nobody is connected to ---------------------------------------------

    async def load_away(self) -> None:
        """At start: stand in for the kept sessions that are subscribed to open topics."""
        self._anonymous_kept = bool(await self._states.store.subscriptions(""))
        if self._open_filters:
            for key, filters in await self._states.store.subscriptions():
                self._stand_in(key, filters)

    def _stand_in(self, key: SessionKey, filters: dict[str, int]) -> None:
        held = {
            f: qos for f, qos in filters.items() if qos and any(overlaps(f, o) for o in self._open_filters)
        }
        if not held:
            return
        away = self._away[key] = Away(key, held, self._limits.max_queued, self._pipeline_offline)
        for topic_filter, qos in held.items():
            if is_wild(topic_filter):
                self._router.add_wild(topic_filter, away, qos)
            elif parse_topic(topic_filter).kind is Kind.OTHER:
                self._router.add(topic_filter, away, qos)

    def _wake(self, key: SessionKey) -> dict[str, int]:
        """Take the stand-in of a session away; returns what it was subscribed to."""
        away = self._away.pop(key, None)
        if away is None:
            return {}
        for topic_filter in away.filters:
            self._router.discard(topic_filter, away)
        return away.filters

    def _pipeline_offline(self, change: StateChange) -> None:
        self._pipeline.offline.append(change)

    async def drop_expired(self) -> None:
        """Take away the stand-ins of sessions that are kept no more."""
        before = list(self._away.items())
        await self._states.save(())
        kept = {key for key, _ in await self._states.store.subscriptions()}
        for key, away in before:
            if key not in kept and self._away.get(key) is away:
                self._wake(key)

    async def queue_events(self, batch: list[Event]) -> None:
        """Bring events to those of their users' sessions that were away when they happened."""
        kept: dict[str, list[tuple[SessionKey, dict[str, int]]]] = {}
        changes: list[StateChange] = []
        for event in batch:
            if event.user not in kept:
                kept[event.user] = await self._states.store.subscriptions(event.user)
            for key, filters in kept[event.user]:
                qos = max((qos for f, qos in filters.items() if matches(f, event.topic)), default=0)
                if not qos or key in event.had_it:
                    continue
                client = self.online.get(key)
                if client is not None and client.session is not None:  # it has come back meanwhile
                    client.session.offer(Outgoing(event.topic, event.payload, 1), 1)
                    continue
                if key in self._attaching:
                    self._out_of_date.add(key)
                queued = QueuedMessage(event.topic, event.payload, 1)
                changes.append(Enqueued(key, queued, self._limits.max_queued))
        if changes:
            await self._states.save(changes)

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
            self.arrived(Arrival(session.key.user, *acknowledged))

    def expires_in(self, client: Client) -> float | None:
        """Seconds until a connection's credential ends, or None if it does not."""
        expires_at = client.publisher.principal.identity.expires_at
        return None if expires_at is None else expires_at - self._now_ms() / 1000

    # --- rights ----------------------------------------------------------------------

    def kick(self, user: str, reason: str, whom: Callable[[Identity], bool] = lambda _: True) -> int:
        """End the connections of a user, or those that are meant; returns how many there were."""
        clients = [
            client
            for client in self.users.get(user, {}).values()
            if whom(client.publisher.principal.identity)
        ]
        for client in clients:
            client.will = None  # it would speak for somebody who may not any more
            client.close(reason)
        return len(clients)

    async def follow(self, user: str) -> None:
        """A user's memberships changed: their grants are worked out anew."""
        await self._follow(list(self.users.get(user, {}).values()))

    async def follow_all(self) -> None:
        """Work everybody's grants out anew."""
        await self._follow(list(self.online.values()))

    async def _follow(self, clients: list[Client]) -> None:
        for client in clients:
            if client.session is not None:
                try:
                    await self._subscriptions.follow(client.session)
                except StoreError as error:
                    client.close(f"store failed: {error}")  # it gets all it may when it comes back

    def revoke(self, user: str, topics: Iterable[str]) -> None:
        """A user may not read these topics any more."""
        for client in self.users.get(user, {}).values():
            if client.session is not None:
                self._subscriptions.revoke(client.session, topics)

    def remove(self, user: str) -> None:
        """A user is gone: so are their connections and all that was kept for them."""
        self.kick(user, "user removed")
        for key in [key for key in self._away if key.user == user]:
            self._wake(key)
        self._states.submit([Forgotten(user, None)])

    async def follow_topic(self, topic: str) -> None:
        """Who may read a topic of the table changed: its readers, the owner excepted, lose it at once,
        and those who still may get it back."""
        self._subscriptions.rights_changed()
        owner = parse_topic(topic).owner
        keys = [
            subscriber.session.key if isinstance(subscriber, Screened) else subscriber.key
            for subscriber in self._router.exact(topic)
        ]
        readers = [self.online[key] for key in keys if key in self.online and key.user != owner]
        for client in readers:
            if client.session is not None:
                self._subscriptions.revoke(client.session, [topic])
        await self._follow(readers)

    def forget_permits(self, user: str | None = None, topics: Collection[str] | None = None) -> None:
        """Where a user, or everybody, may publish is asked anew: about some topics, or all."""
        clients = self.online if user is None else self.users.get(user, {})
        for client in clients.values():
            client.publisher.forget_permits(topics)
