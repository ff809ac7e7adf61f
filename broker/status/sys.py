"""`$SYS/broker/...`: the node's own figures, retained in memory only."""

from collections.abc import Callable, Mapping

from broker.delivery.feeder import RetainedReader
from broker.domain.topics import matches
from broker.ports import Retained

ROOT = "$SYS/broker/"


class SysTopics:
    """Keeps the last value of each `$SYS` topic and publishes changes.

    `publish(topic, payload)` delivers a value to the subscribers. `stored` reads the retained messages of
    all other topics.
    """

    def __init__(self, stored: RetainedReader, publish: Callable[[str, bytes], None]) -> None:
        self._stored = stored
        self._publish = publish
        self.values: dict[str, bytes] = {}

    def update(self, values: Mapping[str, object]) -> None:
        """Publish the changed ones of some values. Keys are topic names below `$SYS/broker/`."""
        for name, value in values.items():
            payload = str(value).encode()
            if self.values.get(ROOT + name) != payload:
                self.retain(ROOT + name, payload)

    def retain(self, topic: str, payload: bytes) -> None:
        """Publish a value and retain it."""
        self.values[topic] = payload
        self._publish(topic, payload)

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        """As `StateStore.retained`, with the `$SYS` topics from memory."""
        # [MQTT-4.7.2-1]: only a filter that begins with "$" can match them.
        if not topic_filter.startswith("$"):
            return await self._stored(topic_filter, after, limit)
        found = sorted(t for t in self.values if t > after and matches(topic_filter, t))
        return [Retained(topic, self.values[topic], 0) for topic in found[:limit]]
