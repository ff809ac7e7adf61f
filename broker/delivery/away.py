"""Persistent sessions that are away, that is, without a connection.

Log topics need nothing here: a session reads them from its cursor when it is back. Messages of open topics
are queued in the store, for the sessions that are subscribed to them.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from broker.delivery.router import Router
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.domain.topics import Kind, is_wild, overlaps, parse_topic
from broker.ports import Enqueued, QueuedMessage, SessionKey
from broker.states import States


class Sessions(Protocol):
    """Some sessions."""

    def __contains__(self, key: SessionKey, /) -> bool: ...


class Away:
    """The stand-in of a session that is away, in the routing tables. `filters`: the session's filters that
    reach open topics -> their QoS."""

    __slots__ = ("epoch", "filters", "key")

    def __init__(self, key: SessionKey, filters: Mapping[str, int], epoch: int | None) -> None:
        self.key = key
        self.filters = filters
        self.epoch = epoch

    def queue(
        self, publication: Publication, qos: int, limit: int, max_bytes: int, message_id: int
    ) -> Enqueued:
        """The change that queues a message for the session, see `Enqueued`."""
        message = QueuedMessage(
            publication.topic, publication.payload, qos, properties=publication.properties, id=message_id
        )
        return Enqueued(self.key, message, limit, max_bytes, self.epoch)


class AwaySessions:
    """The stand-ins of a node. `open_filters`: the configured `topics.open`. `most_queued`: the capacity of
    a session's queue."""

    def __init__(
        self,
        states: States,
        open_filters: Sequence[str],
        most_queued: int,
        most_queued_bytes: int,
        *,
        has_epochs: bool = False,
    ) -> None:
        """`has_epochs`: sessions are claimed, because there are other nodes."""
        self._has_epochs = has_epochs
        self._states = states
        self._open_filters = open_filters
        self._most_queued = most_queued, most_queued_bytes
        self._router: Router[Away] = Router()
        self._stand_ins: dict[SessionKey, Away] = {}
        # Sessions that are being loaded for a connection -> whether the state read may be out of date.
        self._loading: dict[SessionKey, bool] = {}
        self._renewing = 0
        # Sessions, and users all of whose sessions are meant, that have come or gone while the store is asked
        # for the stand-ins to renew; None if it is not.
        self._touched: set[SessionKey | str] | None = None

    # --- sessions that are being loaded ----------------------------------------------

    def begin_load(self, key: SessionKey) -> None:
        """A session is about to be read from the store. Also begins again for a second attempt."""
        self._loading[key] = False

    def is_out_of_date(self, key: SessionKey) -> bool:
        """Whether something was queued for the session since `begin_load`."""
        return self._loading[key]

    def end_load(self, key: SessionKey) -> None:
        """The session is loaded, or loading it was given up."""
        del self._loading[key]

    def _changed(self, key: SessionKey) -> None:
        """The stored state of a session changes: a load that is under way must be repeated."""
        if key in self._loading:
            self._loading[key] = True

    # --- stand-ins -------------------------------------------------------------------

    async def load(self) -> None:
        """At the start: create the stand-ins of the stored sessions. Raises `StoreError`."""
        if self._open_filters:
            for each in await self._states.store.subscriptions():
                self.stand_in(each.key, each.filters, each.epoch if self._has_epochs else None)

    def stand_in(
        self, key: SessionKey, filters: Mapping[str, Subscription], epoch: int | None = None
    ) -> None:
        """Create the stand-in of a session, if it is subscribed to open topics with QoS 1 or 2. `epoch` is
        that of its last connection; None without other nodes."""
        self._touch(key)
        if key in self._stand_ins:
            self.wake(key)
        held = self.held(filters)
        if not held:
            return
        away = self._stand_ins[key] = Away(key, held, epoch)
        for topic_filter, qos in held.items():
            if is_wild(topic_filter):
                self._router.add_wild(topic_filter, away, qos)
            elif parse_topic(topic_filter).kind is Kind.OTHER:
                self._router.add(topic_filter, away, qos)

    def has(self, key: SessionKey) -> bool:
        """Whether a session has a stand-in."""
        return key in self._stand_ins

    def held(self, filters: Mapping[str, Subscription]) -> dict[str, int]:
        """The `filters` of the stand-in of a session with these subscriptions. Without any it needs none."""
        return {
            each.topic_filter: each.qos
            for each in filters.values()
            if each.qos and any(overlaps(each.topic_filter, open_) for open_ in self._open_filters)
        }

    def wake(self, key: SessionKey) -> Mapping[str, int]:
        """Remove the stand-in of a session that is connected or deleted. Returns its `filters`."""
        self._touch(key)
        away = self._stand_ins.pop(key, None)
        if away is None:
            return {}
        self._changed(key)
        for topic_filter in away.filters:
            self._router.discard(topic_filter, away)
        return away.filters

    def wake_before(self, key: SessionKey, epoch: int) -> None:
        """Remove the stand-in of a session that has been claimed with this epoch, or deleted, unless it is
        of a later one."""
        away = self._stand_ins.get(key)
        if away is not None and (away.epoch is None or away.epoch < epoch):
            self.wake(key)

    def wake_all(self, user: str) -> None:
        """Remove the stand-ins of a user whose sessions are deleted."""
        self._touch(user)
        for key in [key for key in self._stand_ins if key.user == user]:
            self.wake(key)

    def _touch(self, whose: SessionKey | str) -> None:
        if self._touched is not None:
            self._touched.add(whose)

    @property
    def keys(self) -> list[SessionKey]:
        """The sessions that have a stand-in."""
        return list(self._stand_ins)

    @property
    def is_empty(self) -> bool:
        """Whether no session that is away has a stand-in."""
        return not self._stand_ins

    def queue(
        self, publication: Publication, message_id: int = 0, only: Sessions | None = None
    ) -> list[Enqueued]:
        """The changes that queue a message for the subscribed sessions that are away, or for `only` those.
        The caller must commit them. Messages with QoS 0 are not queued (MQTT 3.1.1, 3.1.2.4)."""
        if not publication.qos:
            return []
        plan = self._router.plan(publication.topic)
        for away in plan:
            self._changed(away.key)
        most = self._most_queued
        return [
            away.queue(publication, min(qos, publication.qos), *most, message_id)
            for away, qos in plan.items()
            if only is None or away.key in only
        ]

    def queue_missed(self, key: SessionKey, message: QueuedMessage, epoch: int) -> Enqueued:
        """The change that queues a message for one session."""
        return Enqueued(key, message, *self._most_queued, epoch)

    def allow_queued(self, most_queued: int, most_queued_bytes: int) -> None:
        """Change the capacity of the queues. A longer one is cut when its next message comes."""
        self._most_queued = most_queued, most_queued_bytes

    async def reopen(self, open_filters: Sequence[str], online: Sessions) -> None:
        """Change the open topics: renew the stand-ins of all sessions but those that are `online`. Raises
        `StoreError`: those of sessions that are away are as before."""
        self._open_filters = open_filters
        await self.renew(online)

    async def renew(self, connected: Sessions) -> None:
        """Make the stand-ins of all sessions again but those that are `connected`. Raises `StoreError`."""
        if not (self._open_filters or self._stand_ins):
            return
        # Sessions may come and go while the store is asked. What they did is newer than its answer.
        touched = self._touched = set() if self._touched is None else self._touched
        self._renewing += 1
        try:
            await self._states.save(())
            stored = await self._states.store.subscriptions()
        finally:
            self._renewing -= 1
            if not self._renewing:
                self._touched = None
        for each in stored:
            key = each.key
            if not (key in connected or key in touched or key.user in touched):
                self.wake(key)
                self.stand_in(key, each.filters, each.epoch if self._has_epochs else None)

    @property
    def subscriptions(self) -> int:
        """The number of filters of all stand-ins."""
        return len(self._router)

    async def drop_expired(self) -> None:
        """Remove the stand-ins of sessions that have expired in the store. Raises `StoreError`."""
        # Sessions that detach while the store is asked may be missing in its answer: only stand-ins from
        # before are removed.
        before = list(self._stand_ins.items())
        await self._states.save(())
        kept = {each.key for each in await self._states.store.subscriptions()}
        for key, away in before:
            if key not in kept and self._stand_ins.get(key) is away:
                self.wake(key)
