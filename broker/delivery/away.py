"""Sessions nobody is connected to. Logs need nothing for them: they wait where the cursor is. What
comes on other topics is queued in the store, for those that are subscribed to some."""

from collections.abc import Mapping, Sequence

from broker.delivery.router import Router
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.domain.topics import Kind, is_wild, overlaps, parse_topic
from broker.ports import Enqueued, QueuedMessage, SessionKey
from broker.states import States


class Away:
    """Stands in for a persistent session: `filters` are those that reach topics outside the table,
    with their QoS."""

    __slots__ = ("_limit", "filters", "key")

    def __init__(self, key: SessionKey, filters: Mapping[str, int], limit: int) -> None:
        self.key = key
        self.filters = filters
        self._limit = limit

    def queue(self, publication: Publication, qos: int) -> Enqueued:
        """The change that queues a message for it."""
        message = QueuedMessage(
            publication.topic, publication.payload, qos, properties=publication.properties
        )
        return Enqueued(self.key, message, self._limit)


class AwaySessions:
    """The stand-ins of a node. `open_filters`: the topics outside the table that exist; `most_queued`:
    messages a session's queue holds."""

    def __init__(self, states: States, open_filters: Sequence[str], most_queued: int) -> None:
        self._states = states
        self._open_filters = open_filters
        self._most_queued = most_queued
        self._router: Router[Away] = Router()
        self._stand_ins: dict[SessionKey, Away] = {}
        # Sessions that are being loaded for a connection, and whether what is read may be out of date.
        self._loading: dict[SessionKey, bool] = {}

    # --- sessions that are being loaded ----------------------------------------------

    def begin_load(self, key: SessionKey) -> None:
        """A session is about to be read from the store."""
        self._loading[key] = False

    def is_out_of_date(self, key: SessionKey) -> bool:
        """Whether something was queued for the session since `begin_load`."""
        return self._loading[key]

    def end_load(self, key: SessionKey) -> None:
        """The session is loaded, or will not be."""
        del self._loading[key]

    def _changed(self, key: SessionKey) -> None:
        """What is kept of a session has changed."""
        if key in self._loading:
            self._loading[key] = True

    # --- stand-ins -------------------------------------------------------------------

    async def load(self) -> None:
        """At start: stand in for the sessions that are kept. Raises `StoreError`."""
        if self._open_filters:
            for key, filters in await self._states.store.subscriptions():
                self.stand_in(key, filters)

    def stand_in(self, key: SessionKey, filters: Mapping[str, Subscription]) -> None:
        """Queue messages for a session from now on, if it is subscribed to open topics at QoS 1 or 2."""
        held = {
            each.topic_filter: each.qos
            for each in filters.values()
            if each.qos and any(overlaps(each.topic_filter, open_) for open_ in self._open_filters)
        }
        if not held:
            return
        away = self._stand_ins[key] = Away(key, held, self._most_queued)
        for topic_filter, qos in held.items():
            if is_wild(topic_filter):
                self._router.add_wild(topic_filter, away, qos)
            elif parse_topic(topic_filter).kind is Kind.OTHER:
                self._router.add(topic_filter, away, qos)

    def wake(self, key: SessionKey) -> Mapping[str, int]:
        """The session is back, or gone for good; returns what its stand-in was subscribed to."""
        away = self._stand_ins.pop(key, None)
        if away is None:
            return {}
        self._changed(key)
        for topic_filter in away.filters:
            self._router.discard(topic_filter, away)
        return away.filters

    def wake_all(self, user: str) -> None:
        """The sessions of a user are gone for good."""
        for key in [key for key in self._stand_ins if key.user == user]:
            self.wake(key)

    def queue(self, publication: Publication) -> list[Enqueued]:
        """The changes that queue a message for those that are subscribed to its topic; the caller
        has them committed. QoS 0 is not kept for anybody (3.1.2.4)."""
        if not self._stand_ins or not publication.qos:
            return []
        plan = self._router.plan(publication.topic)
        for away in plan:
            self._changed(away.key)
        return [away.queue(publication, min(qos, publication.qos)) for away, qos in plan.items()]

    @property
    def subscriptions(self) -> int:
        """How many filters they hold."""
        return len(self._router)

    async def drop_expired(self) -> None:
        """Take away the stand-ins of sessions that are kept no more. Raises `StoreError`."""
        before = list(self._stand_ins.items())
        await self._states.save(())
        kept = {key for key, _ in await self._states.store.subscriptions()}
        for key, away in before:
            if key not in kept and self._stand_ins.get(key) is away:
                self.wake(key)
