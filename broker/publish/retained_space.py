"""The room for retained messages on open topics: their number and their bytes, of a user and of all."""

from collections import Counter
from collections.abc import Mapping

import msgspec

from broker.ports import Held, Retained


class RetainedLimits(msgspec.Struct, frozen=True):
    """So many messages, of so many bytes together, topics included."""

    messages: int
    bytes: int


class _Kept:
    """What is retained, by everybody or by one user."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = self.bytes = 0

    def add(self, messages: int, size: int) -> None:
        self.messages += messages
        self.bytes += size

    def exceeds(self, limits: RetainedLimits, messages: int, more: int) -> str | None:
        """What there is too little of for so many messages and bytes more: `messages`, `bytes` or None. Less
        than before is always possible."""
        if messages > 0 and self.messages + messages > limits.messages:
            return "messages"
        return "bytes" if more > 0 and self.bytes + more > limits.bytes else None


class Change:
    """A change of the message on a topic, and what was there before it."""

    __slots__ = ("before", "topic")

    def __init__(self, topic: str, before: Held | None) -> None:
        self.topic = topic
        self.before = before

    def skip(self, failed: "Change") -> None:
        """The change before this one could not be stored: what was there before it still is."""
        self.before = failed.before


class RetainedSpace:
    """The retained messages of the node have the limits `of_all`, and those of each user `of_user`. A message
    belongs to who published it last.

    The platform's own retained messages, one presence for each user, are not counted. Who published those
    that an earlier version has stored is not known: they count for the node only. What is retained is known
    by topic, owner and size, so its memory is bounded by `of_all.messages`. `limited` counts how often a
    limit had an effect, by its key.
    """

    def __init__(self, of_all: RetainedLimits, of_user: RetainedLimits, limited: Counter[str]) -> None:
        self._of_all = of_all
        self._of_user = of_user
        self._limited = limited
        self._held: dict[str, Held] = {}
        self._changes: dict[str, list[Change]] = {}
        """Topic -> the changes that are on their way to the disk, the earliest first."""
        self._all = _Kept()
        self._users: dict[str, _Kept] = {}

    def allow(self, of_all: RetainedLimits, of_user: RetainedLimits) -> None:
        """Change the limits. What is retained stays."""
        self._of_all = of_all
        self._of_user = of_user

    def load(self, held: Mapping[str, Held]) -> None:
        """At the start: what is stored, by topic."""
        for topic, each in held.items():
            self._set(topic, each)

    def has_room(self, topic: str, payload: bytes, owner: str) -> bool:
        """Whether `owner` may retain a message. Removing one, and replacing one's own by a smaller one, is
        always possible."""
        if not payload:
            return True
        before, size = self._held.get(topic), _size(topic, payload)
        found = self._all.exceeds(self._of_all, before is None, size - (before.size if before else 0))
        if found is not None:
            self._limited[f"retained_{found}"] += 1
            return False
        own = before.size if before is not None and before.owner == owner else 0
        found = self._users.get(owner, _Kept()).exceeds(self._of_user, not own, size - own)
        if found is not None:
            self._limited[f"retained_{found}_per_user"] += 1
        return found is None

    def begin(self, topic: str) -> Change:
        """The message on a topic is about to change. Its outcome must be told to `settle`."""
        change = Change(topic, self._held.get(topic))
        self._changes.setdefault(topic, []).append(change)
        return change

    def settle(self, change: Change, *, stored: bool) -> None:
        """A change is on disk, or could not be stored. Later ones of its topic may be on their way."""
        changes = self._changes.get(change.topic, [])
        if change not in changes:
            return  # a later one is on disk already
        place = changes.index(change)
        if stored:
            del changes[: place + 1]
        else:
            del changes[place]
            if place < len(changes):
                changes[place].skip(change)
            else:
                self._set(change.topic, change.before)
        if not changes:
            del self._changes[change.topic]

    def retained(self, message: Retained) -> None:
        """A message is to be retained."""
        if not message.topic.startswith("users/"):
            size = _size(message.topic, message.payload)
            self._set(message.topic, Held(message.owner, size) if size else None)

    def _set(self, topic: str, held: Held | None) -> None:
        if (before := self._held.pop(topic, None)) is not None:
            self._count(before.owner, -1, -before.size)
        if held is not None:
            self._held[topic] = held
            self._count(held.owner, 1, held.size)

    def _count(self, owner: str, messages: int, size: int) -> None:
        self._all.add(messages, size)
        if not owner:
            return
        kept = self._users.setdefault(owner, _Kept())
        kept.add(messages, size)
        if not kept.messages:
            del self._users[owner]


def _size(topic: str, payload: bytes) -> int:
    return len(topic.encode()) + len(payload) if payload else 0
