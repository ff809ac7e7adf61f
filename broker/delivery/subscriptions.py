"""What each session is subscribed to, kept true while memberships change.

A session's filters are turned into grants: the topics of the contract's table they match and
the user may read, spelled out, and what remains of them as wildcards. When a right changes the
grants are worked out anew, so a filter follows a membership without a new SUBSCRIBE.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from broker.delivery.feeder import Feeder, RetainedQuery
from broker.delivery.router import Router
from broker.delivery.screened import Screened
from broker.delivery.subscriber import Subscriber
from broker.domain.conversation import log_name, log_topic
from broker.domain.errors import StoreError
from broker.domain.subscription import Subscription, by_filter
from broker.domain.topics import CURSOR_KINDS, MAX_LEVELS, Kind, any_match, is_wild, matches, parse_topic
from broker.ports import Grant, MessageLog, Saved
from broker.session.session import Session
from broker.session.tail import Tail
from broker.states import States
from broker.wire.packets import SUBSCRIBE_FAILURE

logger = logging.getLogger(__name__)

Granter = Callable[[Session, str], Awaitable[Grant | None]]


class _Wanted(NamedTuple):
    """What a session's filters come to."""

    exact: dict[str, int]
    """Topic -> QoS."""
    floors: dict[str, int]
    """Topic -> the offset at which the right to read it begins."""
    wild: dict[str, tuple[int, bool]]
    """Wildcard -> QoS, and whether it covers everything or open topics only."""


class Subscriptions:
    """`grant(session, filter)` asks who may read what; `steady_ms` is Unix ms that clock steps do not change.

    `may_receive(session, topic)`, if given, is asked before each delivery, too.
    """

    def __init__(
        self,
        router: Router[Subscriber],
        log: MessageLog,
        states: States,
        feeder: Feeder,
        grant: Granter,
        steady_ms: Callable[[], int],
        may_receive: Callable[[Session, str], Awaitable[bool]] | None = None,
        max_filters: int = 1000,
    ) -> None:
        self._max_filters = max_filters
        self._router = router
        self._log = log
        self._states = states
        self._feeder = feeder
        self._grant = grant
        self._steady_ms = steady_ms
        self._may_receive = may_receive
        self._screened: dict[Session, Screened] = {}
        self._revocations = 0
        self._locks: dict[Session, asyncio.Lock] = {}

    async def subscribe(self, session: Session, wanted: Sequence[Subscription]) -> list[int]:
        """Subscribe (3.8.4); returns the SUBACK's codes. A persistent session's subscription is
        on disk on return. Raises `StoreError`."""
        async with self._lock(session):
            granted: list[Subscription] = []
            codes = []
            for subscription in wanted:
                topic_filter = subscription.topic_filter
                if topic_filter.count("/") >= MAX_LEVELS or (
                    topic_filter not in session.filters
                    and len(session.filters) + len(granted) >= self._max_filters
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
                if session.identity.role == "admin" and topic_filter not in grant.topics:
                    logger.warning("admin %s subscribed to %r", session.key.user, topic_filter)
            if granted:
                known = frozenset(session.filters)
                session.filters.update(by_filter(granted))
                await self._apply(session, known)
                await self._save(session)
            return codes

    def send_retained(self, session: Session, filters: Iterable[str]) -> None:
        """Send what is retained on filters just subscribed to [MQTT-3.3.1-6]."""
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
        """Unsubscribe (3.10.4). Raises `StoreError`."""
        async with self._lock(session):
            for topic_filter in filters:
                session.filters.pop(topic_filter, None)
            await self._apply(session, frozenset(session.filters))
            for log in list(session.parked):
                if not any(matches(topic_filter, log_topic(log)) for topic_filter in session.filters):
                    del session.parked[log]
            await self._save(session)

    async def resume(self, session: Session) -> None:
        """Take up the filters of a session that came back, and its place in each log."""
        async with self._lock(session):
            await self._apply(session, frozenset(session.filters))
            await self._finish(session)
        if session.connected:
            session.forget_lost()

    async def follow(self, session: Session) -> None:
        """Rights changed: work the grants out anew, and send the presence of new contacts."""
        async with self._lock(session):
            before = frozenset(session.grants)
            await self._apply(session, frozenset(session.filters))
            new = [topic for topic in session.grants if topic not in before]
            presences = [topic for topic in new if parse_topic(topic).kind is Kind.PRESENCE]
            if presences and session.connected:
                self._feeder.send_retained(
                    session, [RetainedQuery(topic, session.grants[topic], False) for topic in presences]
                )

    def adopt(self, session: Session, held: Mapping[str, int]) -> None:
        """Let a session have at once what its stand-in was subscribed to while it was away, all of it
        topics outside the table, so that nothing is missed while its grants are worked out."""
        self._route(
            session,
            {topic: qos for topic, qos in held.items() if not is_wild(topic)},
            {topic_filter: (qos, False) for topic_filter, qos in held.items() if is_wild(topic_filter)},
        )

    def rights_changed(self) -> None:
        """What is being asked now may be out of date when it is answered: it is asked again."""
        self._revocations += 1

    def revoke(self, session: Session, topics: Iterable[str]) -> None:
        """Take topics of the table from a session at once; its filters stay."""
        self.rights_changed()
        subscriber = self._subscriber(session)
        for topic in topics:
            if session.grants.pop(topic, None) is not None:
                self._router.discard(topic, subscriber)
            session.park_tail(topic)

    def release(self, session: Session) -> None:
        """Take a session whose connection ended out of the routing tables."""
        session.disconnected()
        subscriber = self._screened.pop(session, session)
        for topic in session.grants:
            self._router.discard(topic, subscriber)
        self._feeder.forget(session)
        self._locks.pop(session, None)

    def forget_screens(self) -> None:
        """Have plugins asked anew about what sessions may receive."""
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
            session.logs.saved()  # older than what is saved now
            await self._states.save([Saved(session.key, session.snapshot(), self._steady_ms())])

    async def _apply(self, session: Session, known: Collection[str]) -> None:
        """Bring grants, routes and tails in line with the session's filters.

        A log that is new to the session begins at its stored cursor if there is one; else where the
        right to read it began, if one of the filters `known` before has waited for that; else at
        the head.
        """
        while True:
            revocations = self._revocations
            wanted = await self._wanted(session)
            tails = [topic for topic in wanted.exact if parse_topic(topic).kind in CURSOR_KINDS]
            heads = await self._heads(session, tails)
            if not session.connected:
                return  # the connection went while the directory was asked
            if revocations == self._revocations:
                break  # else what was granted may have been lost meanwhile
        exact, floors = wanted.exact, wanted.floors
        self._route(session, exact, wanted.wild)
        for gone in [tail for topic, tail in session.tails.items() if topic not in exact]:
            if any_match(session.filters, gone.topic):  # the right to read it is lost
                session.park_tail(gone.topic)
            else:
                session.finish_tail(gone.topic, gone.log)
        for topic in tails:
            if (tail := session.tails.get(topic)) is not None:
                tail.grant(exact[topic])
                continue
            log = log_name(parse_topic(topic))
            if log in session.parked:
                position = max(session.parked[log], floors.get(topic, 0))
            elif exact[topic] and parse_topic(topic).kind is Kind.GROUP and any_match(known, topic):
                position = floors.get(topic, heads[log])
            else:
                position = heads[log]
            session.add_tail(Tail(topic, log, position, exact[topic]))
        if session.behind:
            self._feeder.lagging(session)

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
        wanted = _Wanted({}, {}, {})
        for topic_filter, subscription in list(session.filters.items()):
            qos = subscription.qos
            grant = await self._grant(session, topic_filter)
            if grant is None:
                continue
            topics = dict(grant.topics)
            if grant.open or grant.everything:
                if is_wild(topic_filter):
                    wanted.wild[topic_filter] = (qos, grant.everything)
                else:
                    topics.setdefault(topic_filter, 0)
            wanted.floors.update(topics)
            for topic in topics:
                wanted.exact[topic] = max(qos, wanted.exact.get(topic, 0))
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
