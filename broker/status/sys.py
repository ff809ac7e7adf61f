"""`$SYS/broker/...`: what the node says about itself, retained in memory only."""

from collections.abc import Callable, Mapping

from broker.delivery.feeder import RetainedReader
from broker.domain.topics import matches
from broker.ports import Retained

ROOT = "$SYS/broker/"


class SysTopics:
    """Keeps the last value of each `$SYS` topic and publishes changes.

    `publish(topic, payload)` hands a value to those subscribed; `stored` reads what is retained of
    other topics.
    """

    def __init__(self, stored: RetainedReader, publish: Callable[[str, bytes], None]) -> None:
        self._stored = stored
        self._publish = publish
        self.values: dict[str, bytes] = {}

    def update(self, values: Mapping[str, object]) -> None:
        """Publish values by the rest of their topic's name, those that changed."""
        for name, value in values.items():
            payload = str(value).encode()
            if self.values.get(ROOT + name) != payload:
                self.retain(ROOT + name, payload)

    def retain(self, topic: str, payload: bytes) -> None:
        """Publish one topic and keep its value."""
        self.values[topic] = payload
        self._publish(topic, payload)

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        """As `StateStore.retained`, with the `$SYS` topics answered from memory."""
        if not topic_filter.startswith("$"):
            return await self._stored(topic_filter, after, limit)
        found = sorted(t for t in self.values if t > after and matches(topic_filter, t))
        return [Retained(topic, self.values[topic], 0) for topic in found[:limit]]
