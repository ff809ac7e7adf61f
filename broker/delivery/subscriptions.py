"""The subscriptions of sessions, kept in line with the users' rights.

A session's filters are resolved to grants. Topics of the table (docs/topics.md) are granted one by one:
those that a filter matches and that the user may read. For open topics, and for administrators, the filter
itself is granted. When a right changes, the grants are determined again. So a filter follows a membership
without a new SUBSCRIBE.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from broker.delivery.feeder import Feeder, RetainedQuery, tell_gap
from broker.delivery.interest import Interest
from broker.delivery.router import Router
from broker.delivery.screened import Screened
from broker.delivery.subscriber import Subscriber
from broker.domain.conversation import log_name, log_topic
from broker.domain.errors import StoreError
from broker.domain.subscription import Subscription, by_filter
from broker.domain.topics import CURSOR_KINDS, MAX_LEVELS, Kind, any_match, is_wild, matches, parse_topic
from broker.domain.visibility import OPEN, Horizon, View, inbox_view
from broker.ports import Grant, Lost, MessageLog, Saved
from broker.session.session import Session
from broker.session.tail import Tail
from broker.states import States
from broker.wire.packets import SUBSCRIBE_FAILURE

logger = logging.getLogger(__name__)

Granter = Callable[[Session, str], Awaitable[Grant | None]]
Floors = Callable[[str], Awaitable[Mapping[str, int | None]]]


class _Wanted(NamedTuple):
    """The grants of a session's filters."""

    exact: dict[str, int]
    """Topic -> QoS."""
    floors: dict[str, int]
    """Topic -> offset. The user may read the entries after it."""
    wild: dict[str, tuple[int, bool]]
    """Wildcard -> QoS, and whether it covers everything or open topics only."""
    since: int
    """See `Grant.since`."""
    earlier: Mapping[str, int | None]
    """The floors of conversations of an earlier account with the user's id."""

    def horizon(self, topic: str) -> View:
        """The messages of a topic's log that are hidden."""
        match parse_topic(topic).kind:
            case Kind.GROUP:
                return Horizon(seq=self.floors.get(topic, 0))
            case Kind.INBOX:
                return inbox_view(self.earlier, self.since) if self.earlier else OPEN
        return OPEN


class Subscriptions:
    """Subscribes sessions, and maintains their grants, routes and tails.

    `grant(session, filter)` is the right to read through a filter, see `Gate.grant`. `floors(user)` is
    `ConversationStore.floors`. `steady_ms` is Unix ms that steps of the wall clock do not change.
    `may_receive(session, topic)`, if not None, is asked before each delivery. A session has at most
    `max_filters` filters. `interest` is that of the router.
    """

    def __init__(
        self,
        router: Router[Subscriber],
        log: MessageLog,
        states: States,
        feeder: Feeder,
        grant: Granter,
        floors: Floors,
        steady_ms: Callable[[], int],
        may_receive: Callable[[Session, str], Awaitable[bool]] | None = None,
        max_filters: int = 1000,
        interest: Interest | None = None,
    ) -> None:
        self._interest = interest
        self._max_filters = max_filters
        self._router = router
        self._log = log
        self._states = states
        self._feeder = feeder
        self._grant = grant
        self._floors = floors
        self._steady_ms = steady_ms
        self._may_receive = may_receive
        self._screened: dict[Session, Screened] = {}
        self._revocations = 0
        self._locks: dict[Session, asyncio.Lock] = {}

    def allow_filters(self, most: int) -> None:
        """Change how many filters a session may have. A session that has more keeps them."""
        self._max_filters = most

    async def subscribe(self, session: Session, wanted: Sequence[Subscription]) -> list[int]:
        """Subscribe (MQTT 3.1.1, 3.8.4). Returns a SUBACK code per subscription, in their order
        [MQTT-3.8.4-5]: the granted QoS, or 0x80. The filters of a persistent session are on disk on
        return. Raises `StoreError`."""
        async with self._lock(session):
            granted: list[Subscription] = []
            codes = []
            held = set(session.filters)
            asked: set[str] = set()
            for subscription in wanted:
                topic_filter = subscription.topic_filter
                if topic_filter in asked:  # a packet may repeat one filter 60,000 times
                    codes.append(subscription.qos)
                    granted.append(subscription)
                    continue
                if topic_filter.count("/") >= MAX_LEVELS or (
                    topic_filter not in held and len(held) >= self._max_filters
                ):
                    codes.append(SUBSCRIBE_FAILURE)
                    continue
                try:
                    grant = await self._grant(session, topic_filter)
                except StoreError as error:
                    logger.error("cannot tell whether %r may be read, refusing: %s", topic_filter, error)
                    grant = None
                if grant is None:
                    codes.append(SUBSCRIBE_FAILURE)
                    continue
                codes.append(subscription.qos)
                granted.append(subscription)
                held.add(topic_filter)
                asked.add(topic_filter)
                _warn_of_admin(session, topic_filter, grant)
            if granted:
                known = frozenset(session.filters)
                session.filters.update(by_filter(granted))
                await self._apply(session, known)
                await self._save(session)
            return codes

    def send_retained(self, session: Session, filters: Iterable[str]) -> None:
        """Send the retained messages of filters just subscribed to [MQTT-3.3.1-6]. Call it after SUBACK."""
        grants = session.grants
        presence = [topic for topic in grants if parse_topic(topic).kind is Kind.PRESENCE]
        wanted = []
        for topic_filter in filters:
            if topic_filter in grants:
                only_open = topic_filter in session.open_wildcards
                wanted.append(RetainedQuery(topic_filter, grants[topic_filter], only_open))
            if is_wild(topic_filter):
                seen = [topic for topic in presence if matches(topic_filter, topic)]
                wanted += [RetainedQuery(topic, grants[topic], False) for topic in seen]
        if wanted:
            self._feeder.send_retained(session, wanted)

    async def unsubscribe(self, session: Session, filters: list[str]) -> None:
        """Unsubscribe (MQTT 3.1.1, 3.10.4). The change of a persistent session is on disk on return. Raises
        `StoreError`."""
        async with self._lock(session):
            for topic_filter in filters:
                session.filters.pop(topic_filter, None)
            await self._apply(session, frozenset(session.filters))
            for log in list(session.parked):
                if not any(matches(topic_filter, log_topic(log)) for topic_filter in session.filters):
                    del session.parked[log]
            await self._save(session)

    async def resume(self, session: Session) -> None:
        """Subscribe a restored session to its filters, from its cursors on. Raises `StoreError`."""
        async with self._lock(session):
            await self._apply(session, frozenset(session.filters))
            await self._finish(session)
        if session.connected:
            session.forget_lost()

    async def follow(self, session: Session) -> None:
        """Rights changed: determine the grants of a session again, and send it the presence of new contacts.
        Raises `StoreError`."""
        async with self._lock(session):
            new = await self._apply(session, frozenset(session.filters))
            presences = [topic for topic in new if parse_topic(topic).kind is Kind.PRESENCE]
            if presences and session.connected:
                self._feeder.send_retained(
                    session, [RetainedQuery(topic, session.grants[topic], False) for topic in presences]
                )

    def adopt(self, session: Session, held: Mapping[str, int]) -> None:
        """Route open topics to a session at once: those that its stand-in held while it was away, as
        filter -> QoS. Otherwise it would miss messages until its grants are determined."""
        self._route(
            session,
            {topic: qos for topic, qos in held.items() if not is_wild(topic)},
            {topic_filter: (qos, False) for topic_filter, qos in held.items() if is_wild(topic_filter)},
        )

    def rights_changed(self) -> None:
        """Rights changed: grants that are being determined now are out of date, and determined again."""
        self._revocations += 1

    def revoke(self, session: Session, topics: Iterable[str]) -> None:
        """Take the grants of table topics from a session at once. Its filters stay, so a right that returns
        takes effect without a new SUBSCRIBE."""
        self.rights_changed()
        subscriber = self._subscriber(session)
        for topic in topics:
            if session.grants.pop(topic, None) is not None:
                self._router.discard(topic, subscriber)
            session.park_tail(topic)

    def release(self, session: Session) -> None:
        """Remove a session whose connection has ended from the routing tables."""
        session.disconnected()
        subscriber = self._screened.pop(session, session)
        for topic in session.grants:
            self._router.discard(topic, subscriber)
        self._feeder.forget(session)
        self._locks.pop(session, None)

    def forget_screens(self) -> None:
        """Clear the cached answers of `may_receive`."""
        for screened in self._screened.values():
            screened.forget()

    def _subscriber(self, session: Session) -> Session | Screened:
        if self._may_receive is None:
            return session
        if session not in self._screened:
            self._screened[session] = Screened(session, partial(self._may_receive, session))
        return self._screened[session]

    def _lock(self, session: Session) -> asyncio.Lock:
        return self._locks.setdefault(session, asyncio.Lock())

    async def _save(self, session: Session) -> None:
        if session.persistent and session.connected:
            session.logs.saved()  # the snapshot has newer cursors
            saved = Saved(session.key, session.snapshot(), self._steady_ms(), session.epoch)
            await self._states.save([saved], patient=True)

    async def _apply(self, session: Session, known: Collection[str]) -> list[str]:
        """Bring grants, routes and tails in line with the session's filters. Returns the grants that are
        new, compared with those at the end of the look-up: one that was revoked during it is new again."""
        announced: list[str] = []
        try:
            while True:
                revocations = self._revocations
                wanted = await self._wanted(session)
                tails = [topic for topic in wanted.exact if parse_topic(topic).kind in CURSOR_KINDS]
                if self._interest is not None:
                    topics = [*wanted.exact, *wanted.wild]
                    announced += topics
                    await self._interest.announce(topics)
                heads = await self._heads(session, tails)
                if not session.connected:
                    return []  # the connection has ended while the directory was asked
                if revocations == self._revocations:
                    break  # otherwise a right granted above may be lost already
            return self._grant_all(session, wanted, known, tails, heads)
        finally:
            if self._interest is not None:
                self._interest.release(announced)

    def _grant_all(
        self,
        session: Session,
        wanted: "_Wanted",
        known: Collection[str],
        tails: Sequence[str],
        heads: Mapping[str, int],
    ) -> list[str]:
        """Give a session its grants, routes and tails. Returns the grants that are new."""
        exact = wanted.exact
        new = [topic for topic in (*exact, *wanted.wild) if topic not in session.grants]
        self._route(session, exact, wanted.wild)
        for gone in [tail for topic, tail in session.tails.items() if topic not in exact]:
            if any_match(session.filters, gone.topic):  # the right to read it is lost
                session.park_tail(gone.topic)
            else:
                session.finish_tail(gone.topic, gone.log)
        for topic in tails:
            if (tail := session.tails.get(topic)) is not None:
                tail.grant(exact[topic], wanted.horizon(topic))
                continue
            position = _start(session, topic, wanted, known, heads)
            log = log_name(parse_topic(topic))
            session.add_tail(Tail(topic, log, position, exact[topic], wanted.horizon(topic)))
        if session.behind:
            self._feeder.lagging(session)
        return new

    async def _finish(self, session: Session) -> None:
        """Complete what earlier connections have begun to send of logs that the client has unsubscribed
        from since [MQTT-3.10.4-3], as far as it may still read them."""
        while True:
            revocations = self._revocations
            logs = session.redeliveries.unsent_logs - {tail.log for tail in session.logs.read}
            permitted = []
            for log in logs:
                grant = await self._grant(session, log_topic(log))
                if grant is not None and log_topic(log) in grant.topics:
                    permitted.append(log)
            if not session.connected:
                return
            if revocations == self._revocations:
                break
        for log in permitted:
            session.finish_tail(log_topic(log), log)

    async def _wanted(self, session: Session) -> "_Wanted":
        wanted = _Wanted({}, {}, {}, 0, {})
        for topic_filter, subscription in list(session.filters.items()):
            qos = subscription.qos
            grant = await self._grant(session, topic_filter)
            if grant is None:
                continue
            wanted = wanted._replace(since=max(wanted.since, grant.since))
            topics = dict(grant.topics)
            if grant.open or grant.everything:
                if is_wild(topic_filter):
                    wanted.wild[topic_filter] = (qos, grant.everything)
                else:
                    topics.setdefault(topic_filter, 0)
            wanted.floors.update(topics)
            for topic in topics:
                wanted.exact[topic] = max(qos, wanted.exact.get(topic, 0))
        if wanted.since:
            wanted = wanted._replace(earlier=await self._floors(session.key.user))
        return wanted

    async def _heads(self, session: Session, topics: Iterable[str]) -> dict[str, int]:
        logs = [log_name(parse_topic(topic)) for topic in topics if topic not in session.tails]
        return await self._log.heads(logs) if logs else {}

    def _route(self, session: Session, exact: dict[str, int], wild: dict[str, tuple[int, bool]]) -> None:
        router = self._router
        subscriber = self._subscriber(session)
        grants = exact | {topic_filter: qos for topic_filter, (qos, _) in wild.items()}
        for topic in session.grants:
            if topic not in grants:
                router.discard(topic, subscriber)
        for topic, qos in exact.items():
            if session.grants.get(topic) != qos:
                router.add(topic, subscriber, qos)
        for topic_filter, (qos, everything) in wild.items():
            router.discard(topic_filter, subscriber)
            if everything:
                router.add_everything(topic_filter, subscriber, qos)
            else:
                router.add_wild(topic_filter, subscriber, qos)
        open_only = {topic_filter for topic_filter, (_, everything) in wild.items() if not everything}
        session.grant(grants, frozenset(open_only))


def _warn_of_admin(session: Session, topic_filter: str, grant: Grant) -> None:
    """Log that an administrator reads what others write: whatever is not granted as a topic of the table."""
    if session.identity.role == "admin" and topic_filter not in grant.topics:
        logger.warning(
            "admin %s subscribed to %r",
            session.key.user,
            topic_filter,
            extra={"client": session.key.user, "reason": f"subscribed to {topic_filter}"},
        )


def _start(
    session: Session, topic: str, wanted: _Wanted, known: Collection[str], heads: Mapping[str, int]
) -> int:
    """Where a new tail starts: at the stored cursor, if there is one. Otherwise, if a filter of `known`
    matched the group before the user joined it, where the right to read it starts: the subscription has
    waited for these entries. Otherwise at the head of the log."""
    parsed = parse_topic(topic)
    log = log_name(parsed)
    position = head = heads[log]
    if log in session.parked:
        position = max(session.parked[log], wanted.floors.get(topic, 0))
    elif wanted.exact[topic] and parsed.kind is Kind.GROUP and any_match(known, topic):
        position = wanted.floors.get(topic, head)
    return _within(session, topic, position, head)


def _within(session: Session, topic: str, position: int, head: int) -> int:
    """Where to begin to read a log: at `position`, but not beyond its head. If entries are gone that the
    session has been sent or that its cursor points to, its client is told."""
    log = log_name(parse_topic(topic))
    lost = session.take_lost(log)
    if position > head:
        lost = lost or Lost(head + 1, position)
        session.go_back(log, head)
    if lost is not None:
        logger.warning("session %s: %s has no entries from %d on, which it had", session.key, log, lost.first)
        tell_gap(session, topic, lost.first, lost.last)
    return min(position, head)
