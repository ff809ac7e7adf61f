"""Events of users: delivered to connected sessions, queued for sessions that are away."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.online import HasSession, Online
from broker.domain.publication import Publication
from broker.domain.subscription import Subscription
from broker.domain.topics import matches
from broker.group_commit import GroupCommit
from broker.metrics import Metrics
from broker.ports import Enqueued, QueuedMessage, SessionKey, StateChange
from broker.states import States
from broker.wire.encoder import Outgoing

_MOST_WAITING = 10_000
_BATCH = 500


class Event(msgspec.Struct, frozen=True):
    """An event of a user. `had_it`: the sessions that were connected then and got it."""

    user: str
    publication: Publication
    had_it: frozenset[SessionKey]


class Events:
    """Delivers and queues events. `most_queued` is the capacity of a session's queue."""

    def __init__(
        self,
        fanout: Fanout,
        online: Online[Any],
        away: AwaySessions,
        states: States,
        metrics: Metrics,
        most_queued: int,
    ) -> None:
        self._fanout = fanout
        self._online: Online[HasSession] = online
        self._away = away
        self._states = states
        self._metrics = metrics
        self._most_queued = most_queued
        self._waiting = GroupCommit(self.queue, _BATCH)
        self.drain = self._waiting.drain

    def emit(self, user: str, event: Mapping[str, Any], *, keep: bool = True) -> None:
        """Send an event to a user's sessions. With `keep`, sessions that are away get it later."""
        publication = Publication(f"users/{user}/events", msgspec.json.encode(event), 1)
        self._fanout.forward(publication)
        if not keep:
            return
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.submit(Event(user, publication, frozenset(self._online.of(user))))
        else:
            self._metrics.dropped["events_waiting"] += 1

    async def queue(self, batch: list[Event]) -> None:
        """Queue events for the sessions of their users that were away. Raises `StoreError`."""
        kept: dict[str, list[tuple[SessionKey, dict[str, Subscription]]]] = {}
        changes: list[StateChange] = []
        for event in batch:
            if event.user not in kept:
                kept[event.user] = await self._states.store.subscriptions(event.user)
            for key, filters in kept[event.user]:
                if key not in event.had_it and _wants(filters.values(), event.publication.topic):
                    changes += self._bring(key, event.publication)
        if changes:
            await self._states.save(changes)

    def _bring(self, key: SessionKey, publication: Publication) -> list[Enqueued]:
        client = self._online.get(key)
        if client is not None and client.session is not None:  # it connected in the meantime
            client.session.offer(Outgoing(publication), 1)
            return []
        self._away.changed(key)
        queued = QueuedMessage(publication.topic, publication.payload, 1)
        return [Enqueued(key, queued, self._most_queued)]


def _wants(subscriptions: Iterable[Subscription], topic: str) -> bool:
    return any(each.qos and matches(each.topic_filter, topic) for each in subscriptions)
