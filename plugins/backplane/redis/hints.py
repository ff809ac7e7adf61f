"""Hints: what is published on the channels `<prefix>t:<topic>`."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence

from broker.domain.topics import is_wild, matches
from broker.ports import Hint

from .frames import decode_bodies, own_beginning
from .listener import Listener
from .publisher import Publisher

logger = logging.getLogger(__name__)

_MOST_SENDERS = 1000


class RedisHints:
    """See `broker.ports.Hints`. Hints that cannot be read are counted in `dropped`."""

    def __init__(self, prefix: str, listener: Listener, publisher: Publisher, dropped: Counter[str]) -> None:
        self._prefix = f"{prefix}t:".encode()
        self._escaped = _escape(f"{prefix}t:")
        self._listener = listener
        self.publish: Callable[[Sequence[Hint]], None] = publisher.publish
        self._own = own_beginning(publisher.sender)
        self._dropped = dropped
        self._received: Callable[[Hint], None] = lambda _hint: None
        self._topics: set[str] = set()
        self._filters: dict[bytes, set[str]] = {}
        """Pattern -> the filters with wildcards that it stands for."""
        self._seen: dict[str, int] = {}
        """Sender -> the number of its last hint."""

    def on_hint(self, received: Callable[[Hint], None]) -> None:
        """See `Backplane`."""
        self._received = received

    def follow(self, topic_filter: str) -> None:
        """See `Hints`."""
        if not is_wild(topic_filter):
            self._topics.add(topic_filter)
            self._listener.subscribe(self._prefix + topic_filter.encode(), is_pattern=False)
            return
        pattern = self._pattern(topic_filter)
        filters = self._filters.setdefault(pattern, set())
        filters.add(topic_filter)
        if len(filters) == 1:
            self._listener.subscribe(pattern, is_pattern=True)

    def unfollow(self, topic_filter: str) -> None:
        """See `Hints`."""
        if not is_wild(topic_filter):
            self._topics.discard(topic_filter)
            self._listener.unsubscribe(self._prefix + topic_filter.encode(), is_pattern=False)
            return
        pattern = self._pattern(topic_filter)
        filters = self._filters.get(pattern, set())
        filters.discard(topic_filter)
        if not filters and self._filters.pop(pattern, None) is not None:
            self._listener.unsubscribe(pattern, is_pattern=True)

    async def followed(self) -> None:
        """See `Hints`."""
        await self._listener.in_effect()

    def take(self, channel: bytes, value: bytes, pattern: bytes | None) -> None:
        """Something was published on a channel of hints."""
        if value.startswith(self._own):
            return
        try:
            topic = channel[len(self._prefix) :].decode()
        except UnicodeDecodeError:
            self._dropped["hint_unreadable"] += 1
            return
        # A topic may just have been left, and a pattern of Redis matches more than a filter.
        if pattern is None:
            if topic not in self._topics:
                return
        elif not any(matches(each, topic) for each in self._filters.get(pattern, ())):
            return
        hints = decode_bodies(value)
        if hints is None:
            self._dropped["hint_unreadable"] += 1
        elif self._is_new(hints.sender, hints.number):
            for body in hints.bodies:
                self._tell(Hint(topic, body))

    def _is_new(self, sender: str, number: int) -> bool:
        """Hints come twice if the topic is followed and a filter matches it, too, or if their sender has lost
        its connection before they were confirmed."""
        seen = self._seen
        if number <= seen.get(sender, 0):
            return False
        if sender not in seen and len(seen) >= _MOST_SENDERS:
            del seen[next(iter(seen))]
        seen[sender] = number
        return True

    def _tell(self, hint: Hint) -> None:
        try:
            self._received(hint)
        except Exception:
            logger.exception("a hint for %r failed", hint.topic)

    def _pattern(self, topic_filter: str) -> bytes:
        """The pattern of the channels that a filter with wildcards matches, and perhaps of some more."""
        levels: list[str] = []
        for level in topic_filter.split("/"):
            if level == "#":
                # The level above is matched, too: "a/#" matches "a".
                return f"{self._escaped}{'/'.join(levels)}*".encode()
            levels.append("*" if level == "+" else _escape(level))
        return f"{self._escaped}{'/'.join(levels)}".encode()


_SPECIAL = str.maketrans({each: "\\" + each for each in "*?[]\\"})


def _escape(text: str) -> str:
    return text.translate(_SPECIAL)
