"""A session nobody is connected to, in the routing tables."""

from collections.abc import Callable

from broker.ports import Enqueued, QueuedMessage, SessionKey, StateChange
from broker.wire.encoder import Outgoing


class Away:
    """Stands in for a persistent session that is subscribed to topics which are not logs: what
    comes for it is queued in the store. `offline` takes the change. (Logs need no stand-in.)"""

    __slots__ = ("_limit", "_offline", "added", "filters", "key")

    def __init__(
        self, key: SessionKey, filters: dict[str, int], limit: int, offline: Callable[[StateChange], None]
    ) -> None:
        self.key = key
        self.filters = filters
        self.added = 0
        self._limit = limit
        self._offline = offline

    def offer(self, outgoing: Outgoing, qos: int) -> None:
        """Queue a message, QoS 0 excepted."""
        if qos:
            self.added += 1
            message = QueuedMessage(outgoing.topic, outgoing.payload, qos)
            self._offline(Enqueued(self.key, message, self._limit))

    def offer_entry(self, topic: str, offset: int, outgoing: Outgoing) -> None:
        """Nothing to do: it stands in the log."""
