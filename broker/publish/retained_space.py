"""The room for retained messages on open topics: their number and their bytes."""

from collections import Counter
from collections.abc import Mapping

from broker.ports import Retained


class RetainedSpace:
    """At most `most` retained messages of `most_bytes` bytes together, topics included.

    The platform's own retained messages, one presence for each user, are not counted. What is retained is
    known by topic and size only, so its memory is bounded by `most`. `limited` counts how often a limit had
    an effect, by its key.
    """

    def __init__(self, most: int, most_bytes: int, limited: Counter[str]) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._limited = limited
        self._sizes: dict[str, int] = {}
        self._bytes = 0

    def load(self, sizes: Mapping[str, int]) -> None:
        """At the start: what is stored."""
        self._sizes = dict(sizes)
        self._bytes = sum(sizes.values())

    def has_room(self, topic: str, payload: bytes) -> bool:
        """Whether a message may be retained. Removing one, and replacing it by a smaller one, is always
        possible."""
        held = self.size(topic)
        if payload and not held and len(self._sizes) >= self._most:
            self._limited["retained_messages"] += 1
            return False
        more = _size(topic, payload) - held
        if more > 0 and self._bytes + more > self._most_bytes:
            self._limited["retained_bytes"] += 1
            return False
        return True

    def size(self, topic: str) -> int:
        """The bytes that are retained on a topic; 0 for none."""
        return self._sizes.get(topic, 0)

    def retained(self, message: Retained) -> None:
        """A message is to be retained."""
        if not message.topic.startswith("users/"):
            self.set(message.topic, _size(message.topic, message.payload))

    def set(self, topic: str, size: int) -> None:
        """Correct what is retained on a topic; 0 for nothing."""
        self._bytes += size - self._sizes.pop(topic, 0)
        if size:
            self._sizes[topic] = size


def _size(topic: str, payload: bytes) -> int:
    return len(topic.encode()) + len(payload) if payload else 0
