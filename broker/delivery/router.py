"""The routing tables of a node."""

from typing import Any, Generic, TypeVar

from broker.delivery.interest import Interest
from broker.delivery.trie import Trie
from broker.domain.topics import Kind, is_wild, parse_topic

T = TypeVar("T")

_MATCHES_CACHED = 10_000
_CACHED_LENGTH = 256


class Router(Generic[T]):
    """Subscribers by topic.

    Topics of the table (docs/topics.md) are subscribed to one by one: a user's wildcards are expanded to the
    topics that the user may read. So a message to a group finds its members by one look-up, without
    matching every user's `groups/+`. Wildcards remain for open topics (`add_wild`), and for administrators,
    who may read everything (`add_everything`).

    `interest`, if not None, is told of what is subscribed to.
    """

    def __init__(self, interest: Interest | None = None) -> None:
        self._interest = interest
        self._exact: dict[str, dict[T, int]] = {}
        self._open: Trie[T] = Trie()
        self._everything: Trie[T] = Trie()
        self._matches: dict[str, dict[T, int]] = {}

    def add(self, topic: str, subscriber: T, qos: int) -> None:
        """Subscribe to one topic."""
        subscribers = self._exact.get(topic)
        if subscribers is None:
            subscribers = self._exact[topic] = {}
            if self._interest is not None:
                self._interest.add(topic)
        subscribers[subscriber] = qos

    def add_wild(self, topic_filter: str, subscriber: T, qos: int) -> None:
        """Subscribe to the matching open topics."""
        self._add_wild(topic_filter, subscriber, qos)

    def add_everything(self, topic_filter: str, subscriber: T, qos: int) -> None:
        """Subscribe to all matching topics, those of the table included."""
        self._add_wild(topic_filter, subscriber, qos)
        self._everything.add(topic_filter, subscriber, qos)

    def _add_wild(self, topic_filter: str, subscriber: T, qos: int) -> None:
        before = len(self._open)
        self._open.add(topic_filter, subscriber, qos)
        self._matches.clear()
        if self._interest is not None and len(self._open) > before:
            self._interest.add(topic_filter)

    def discard(self, topic_filter: str, subscriber: T) -> None:
        """Remove a subscription, whichever of the three methods made it."""
        if is_wild(topic_filter):
            before = len(self._open)
            self._open.discard(topic_filter, subscriber)
            self._everything.discard(topic_filter, subscriber)
            self._matches.clear()
            if self._interest is not None and len(self._open) < before:
                self._interest.discard(topic_filter)
        elif (subscribers := self._exact.get(topic_filter)) is not None:
            subscribers.pop(subscriber, None)
            if not subscribers:
                del self._exact[topic_filter]
                if self._interest is not None:
                    self._interest.discard(topic_filter)

    def exact(self, topic: str) -> dict[T, int]:
        """Subscribers to exactly this topic -> QoS. The caller must not change the result."""
        return self._exact.get(topic, _NOBODY)

    def wild(self, topic: str) -> dict[T, int]:
        """Subscribers by wildcard -> highest QoS. The caller must not change the result."""
        found = self._matches.get(topic)
        if found is None:
            if len(self._matches) >= _MATCHES_CACHED:
                self._matches.clear()
            trie = self._open if parse_topic(topic).kind is Kind.OTHER else self._everything
            found = trie.match(topic) if len(trie) else _NOBODY
            if len(topic) <= _CACHED_LENGTH:
                self._matches[topic] = found
        return found

    def plan(self, topic: str) -> dict[T, int]:
        """All subscribers, each once -> highest QoS. The caller must not change the result."""
        exact = self._exact.get(topic, _NOBODY)
        wild = self.wild(topic)
        if not wild:
            return exact
        if not exact:
            return wild
        merged = dict(wild)
        for subscriber, qos in exact.items():
            if merged.get(subscriber, -1) < qos:
                merged[subscriber] = qos
        return merged

    def __len__(self) -> int:
        return sum(map(len, self._exact.values())) + len(self._open)


_NOBODY: dict[Any, int] = {}
