"""A node's share in sessions. A `Bench` is all of a node that has to do with sessions, over a store that
survives its `crash`; a `Link` is one connection to it."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from broker.cluster.counting import Counting
from broker.cluster.others import Others
from broker.cluster.wills import Wills
from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.feeder import Feeder
from broker.delivery.interest import Interest
from broker.delivery.moves import Moves
from broker.delivery.online import Online
from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.delivery.subscriptions import Subscriptions
from broker.domain.errors import RefusedError, StoreError
from broker.domain.message import Entry, with_offset
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.domain.topics import Kind, matches, parse_topic
from broker.metrics import Metrics
from broker.ports import (
    Applied,
    Backplane,
    Claimed,
    Enqueued,
    Forgotten,
    Grant,
    Identity,
    Moved,
    Principal,
    Retained,
    Saved,
    SessionKey,
    SessionState,
    StateChange,
    Subscribed,
)
from broker.publish.publisher import Publisher
from broker.registry import Client, Registry
from broker.rights import Rights
from broker.session.session import Session
from broker.states import States
from broker.tasks import Tasks
from broker.wire.encoder import Outgoing
from broker.wire.packets import Ack, Publish
from tests.unit.session_kit import (
    INBOX,
    KEY,
    NOTES,
    Limits,
    Wire,
    log_of,
    number,
    through_store,
)

_first_ids = itertools.count(1 << 32, 1 << 32)

# --- a node's share in it -------------------------------------------------------------------


class Store:
    """A `StateStore` and the reading half of a `MessageLog`, in memory. Each call takes a turn of
    the event loop. The log's wait for `answers`, and fail when `fails` says so."""

    def __init__(self) -> None:
        self.sessions: dict[SessionKey, SessionState] = {}
        self.epochs: dict[SessionKey, int] = {}
        self.commits = asyncio.Event()
        """While it is not set, no commit ends."""
        self.commits.set()
        self.logs: dict[str, list[int]] = {}
        """Log -> the QoS of its entries."""
        self.fails = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def apply(self, changes: Sequence[StateChange]) -> Applied:
        await asyncio.sleep(0)
        await self.commits.wait()
        dropped, stale = 0, []
        for change in changes:
            if isinstance(change, Saved | Moved | Enqueued) and self._is_stale(change):
                stale.append(change)
            else:
                dropped += self._apply(change)
        return Applied(dropped, stale)

    def _is_stale(self, change: Saved | Moved | Enqueued) -> bool:
        is_current = change.key in self.sessions and change.epoch == self.epochs.get(change.key)
        return change.epoch is not None and not is_current

    async def claim(self, key: SessionKey, at: int) -> Claimed:
        await asyncio.sleep(0)
        state = self.sessions.get(key)
        epoch = self.epochs[key] = self.epochs.get(key, 0) + 1
        if state is None:
            self.sessions[key] = SessionState({}, {}, [], [], [])
        claimed = Claimed(epoch, None if state is None else through_store(state))
        await asyncio.sleep(0)
        return claimed

    def _apply(self, change: StateChange) -> int:
        match change:
            case Saved(key, state):
                self.sessions[key] = through_store(state)
            case Moved(key, cursors, packet_ids) if key in self.sessions:
                self.sessions[key].cursors.update(cursors)
                if packet_ids is not None:
                    self.sessions[key].packet_ids = packet_ids
            case Enqueued(key, message, limit) if key in self.sessions:
                queue = self.sessions[key].queue
                queue.append(message)
                waiting = [queued for queued in queue if not queued.packet_id]
                if len(waiting) > limit:  # what was sent is not waiting: its packet id is taken
                    queue.remove(waiting[0])
                    return 1
            case Forgotten(user, client_id):
                for key in [k for k in self.sessions if k.user == user and client_id in (None, k.client_id)]:
                    del self.sessions[key]
        return 0

    async def load(self, key: SessionKey) -> SessionState | None:
        await asyncio.sleep(0)
        return through_store(self.sessions[key]) if key in self.sessions else None

    async def subscriptions(self, _user: str | None = None) -> list[Subscribed]:
        return [
            Subscribed(key, dict(state.filters), self.epochs.get(key, 0))
            for key, state in self.sessions.items()
        ]

    async def client_ids(self, user: str, limit: int) -> list[str]:
        await asyncio.sleep(0)
        return [key.client_id for key in self.sessions if key.user == user][:limit]

    async def retained(self, _topic_filter: str, _after: str, _limit: int) -> list[Retained]:
        return []

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        await self._log_asked()
        return {log: len(self.logs.get(log, ())) for log in logs}

    async def read(self, log: str, after: int, limit: int, _max_bytes: int) -> list[Entry]:
        await self._log_asked()
        qualities = self.logs.get(log, [])[after : after + limit]
        return [Entry(offset, b'{"n":0}', qos) for offset, qos in enumerate(qualities, start=after + 1)]

    async def _log_asked(self) -> None:
        await asyncio.sleep(0)
        await self.answers.wait()
        if self.fails:
            raise StoreError("the disk is gone")


class NoTime:
    """A clock that stands still."""

    def now_ms(self) -> int:
        return 0

    steady_ms = now_ms


async def yes() -> bool:
    return True


async def none_earlier(_user: str) -> dict[str, int | None]:
    """No id had an earlier account."""
    return {}


class Bench:
    """All of a node that has to do with sessions. `rights`: log topic -> the offset at which the
    right begins; while `directory` is not set, it does not answer, and it may fail."""

    def __init__(
        self,
        limits: Limits | None = None,
        store: Store | None = None,
        backplane: Backplane | None = None,
    ) -> None:
        """`backplane`: of a node that has others."""
        self.limits = limits or Limits()
        self.store = store or Store()
        self.rights = {INBOX: 0}
        self.retained: list[Retained] = []
        self.fails = False
        self.directory = asyncio.Event()
        self.directory.set()
        self.metrics = Metrics()
        self.tasks: set[asyncio.Task[None]] = set()
        self.plugins_say: Callable[[], Awaitable[bool]] = yes
        """Whether plugins let a client receive the queued messages."""
        hints = None if backplane is None else backplane.hints
        interest = None if hints is None else Interest(hints)
        self.moves = Moves(lambda: 0, next(_first_ids))
        router: Router[Subscriber] = Router(interest)
        self.router = router
        self.states = States(self.store, self.metrics)
        self.feeder = Feeder(self.store, self._retained, self.metrics)
        self.subscriptions = Subscriptions(
            router,
            self.store,
            self.states,
            self.feeder,
            self._grant,
            none_earlier,
            lambda: 0,
            None,
            interest=interest,
        )
        self.online: Online[Client] = Online()
        queues = self.limits.max_queued, self.limits.max_queued_bytes
        self.away = AwaySessions(self.states, [NOTES], *queues, has_epochs=backplane is not None)
        moves = None if hints is None else self.moves
        self.fanout = Fanout(router, self.away, self.states, self.metrics, hints, interest, moves)
        self.offline: list[str] = []
        self.live: list[str] = []
        """The users whose retained presence is not `offline`."""
        self.counted: list[tuple[str, int, int | None]] = []
        self.others: Others | None = None
        if backplane is not None and interest is not None:
            backplane.on_hint(self.fanout.receive)
            here = self.online.of
            self.others = Others(
                backplane,
                self.away,
                Counting(backplane, self, lambda user: len(here(user)), self._status_of, Tasks()),
                Wills(self.states, backplane.name),
                self._live_users,
                self.offline.append,
                Tasks(),
                self.moves,
                interest,
            )
        self.registry = Registry(
            self.online,
            self.away,
            self.subscriptions,
            self.feeder,
            self.states,
            None,  # nobody publishes
            self.metrics,
            self.limits,
            NoTime(),
            lambda _user, _devices: None,
            lambda _arrival: None,
            self._may_receive,
            self.others,
        )
        if self.others is not None:
            self.others.serve(self.registry)
        self.rights_of = Rights(
            self.registry,
            self.online,
            self.away,
            self.subscriptions,
            router,
            self.states,
            None,  # nothing changes in it
            Tasks(),
        )

    async def _status_of(self, _user: str) -> str | None:
        return None

    async def _live_users(self) -> list[str]:
        return self.live

    def knows(self, _user: str) -> bool:
        """See `broker.status.presence.Presence`."""
        return True

    def claimed_elsewhere(self, user: str, status: str) -> None:
        """See `broker.status.presence.Presence`."""

    def gone(self, user: str) -> None:
        """See `broker.status.presence.Presence`."""

    def devices_changed(
        self, user: str, devices: int, here: int | None = None, _claimed: str | None = None
    ) -> None:
        """See `broker.status.presence.Presence`."""
        self.counted.append((user, devices, here))

    async def _may_receive(self, _principal: Principal, _topic: str) -> bool:
        return await self.plugins_say()

    async def _retained(self, topic_filter: str, after: str, _limit: int) -> list[Retained]:
        await asyncio.sleep(0)
        return [] if after else [m for m in self.retained if matches(topic_filter, m.topic)]

    async def _grant(self, session: Session, topic_filter: str) -> Grant | None:
        """As `Readers.grant` with the topic rules."""
        rights = dict(self.rights)
        await asyncio.sleep(0)
        await self.directory.wait()
        client = self.online.get(session.key)
        if self.fails:
            raise StoreError("the directory is gone")
        if client is None or client.session is not session:
            return None
        topics = {topic: floor for topic, floor in rights.items() if matches(topic_filter, topic)}
        return Grant(topics, open=parse_topic(topic_filter).kind is Kind.OTHER)

    def append(self, topic: str, *qualities: int, pushed: bool = True) -> None:
        """Commit entries of these QoS. A push is a hint and may come late or never."""
        log = self.store.logs.setdefault(log_of(topic), [])
        for qos in qualities:
            log.append(qos)
            outgoing = Outgoing(Publication(topic, with_offset(b'{"n":0}', len(log)), qos))
            for session in self.router.exact(topic) if pushed else ():
                session.offer_entry(topic, len(log), outgoing)

    def revoke(self, topic: str) -> None:
        """As when a member is removed from a group."""
        self.rights.pop(topic, None)
        self.rights_of.revoke(KEY.user, [topic])
        self.spawn(self.rights_of.follow(KEY.user))

    def give(self, topic: str, floor: int) -> None:
        """As when a member is added to a group."""
        self.rights[topic] = floor
        self.spawn(self.rights_of.follow(KEY.user))

    def spawn(self, job: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def crash(self) -> "Bench":
        """What the store has is all that is left: a new node starts on it."""
        mine = asyncio.all_tasks() - {asyncio.current_task()}
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        bench = Bench(self.limits, self.store)
        bench.rights = self.rights
        await bench.registry.load()
        return bench


class Link:
    """A connection as the registry sees it. Like the real one it takes nothing from the client
    while a step is awaited, and ends when the store fails."""

    def __init__(self, bench: Bench, wire: Wire, clean: bool = False, key: SessionKey = KEY) -> None:
        self.bench = bench
        self.outbox = wire
        self.session: Session | None = None
        self.publisher = Publisher(Principal(Identity(key.user)))
        self.will = None
        self.closed = False
        self.present: bool | None = None
        self.codes: list[int] = []
        self.waiting: list[Callable[[], None]] = []
        self.busy = True
        attached = bench.registry.attach(self, key, clean, self._accept)
        bench.spawn(self._step(attached))

    def _accept(self, present: bool) -> None:
        self.present = present

    def adopt(self, session: Session) -> None:
        self.session = session

    def release_session(self) -> None:
        self.session = None

    def drop_will(self) -> None:
        self.will = None

    async def _step(self, step: Coroutine[object, object, None]) -> None:
        try:
            await step
        except (StoreError, RefusedError) as error:
            self.close(str(error))
        self.busy = False
        while self.waiting and not self.busy and not self.closed:
            self.waiting.pop(0)()

    def take(self, action: Callable[[], None]) -> None:
        """A packet arrived: handle it when the packets before it are handled."""
        if self.busy:
            self.waiting.append(action)
        elif not self.closed:
            action()

    def subscribe(self, *filters: tuple[str, int]) -> None:
        self.take(lambda: self._await(self._subscribe(list(filters))))

    def unsubscribe(self, *filters: str) -> None:
        self.take(lambda: self._await(self._unsubscribe(list(filters))))

    def _await(self, step: Coroutine[object, object, None]) -> None:
        self.busy = True
        self.bench.spawn(self._step(step))

    async def _subscribe(self, filters: list[tuple[str, int]]) -> None:
        assert self.session is not None
        session = self.session
        wanted = [Subscription(topic_filter, qos) for topic_filter, qos in filters]
        self.codes = await self.bench.subscriptions.subscribe(session, wanted)
        self.bench.subscriptions.send_retained(session, dict(filters))

    async def _unsubscribe(self, filters: list[str]) -> None:
        assert self.session is not None
        await self.bench.subscriptions.unsubscribe(self.session, filters)

    def answer_all(self) -> list[int]:
        """Acknowledge everything received, released messages included. Returns the packet ids."""
        session, numbers = self.session, []
        assert session is not None
        for packet in self.outbox.take():
            if isinstance(packet, Ack):
                session.pubcomp(packet.packet_id)
            elif isinstance(packet, Publish):
                numbers.append(number(packet))
                (session.pubrec if packet.qos == 2 else session.puback)(packet.packet_id)
        return numbers

    def close(self, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self.bench.registry.detach(self, reason)


async def settle(turns: int = 60) -> None:
    """Run some turns of the event loop, enough for all pending work."""
    for _ in range(turns):
        await asyncio.sleep(0)
