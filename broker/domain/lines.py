"""Queues that are served in turns, so that a long one delays nobody in the others. Sans-IO."""

import math
from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Lines(Generic[T]):
    """A queue for each key; together they hold at most `most` items."""

    def __init__(self, most: float = math.inf) -> None:
        self._most = most
        self._count = 0
        self._lines: dict[Hashable, deque[T]] = {}
        """The queues that hold something, in the order of their turns."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: Hashable) -> bool:
        """Whether the queue of a key holds something."""
        return key in self._lines

    def put(self, key: Hashable, item: T) -> T | None:
        """Add an item to the queue of a key.

        Returns the item that found no room, or None. It is the last one of the longest queue, perhaps
        `item` itself: whoever fills the queues displaces items of their own."""
        self._lines.setdefault(key, deque()).append(item)
        self._count += 1
        if self._count <= self._most:
            return None
        # From the back, because among queues of the same length the first is served next.
        longest = max(reversed(self._lines), key=lambda key: len(self._lines[key]))
        self._count -= 1
        displaced = self._lines[longest].pop()
        if not self._lines[longest]:
            del self._lines[longest]
        return displaced

    def take(self) -> T | None:
        """The first item of the queue whose turn it is, or None if all are empty."""
        key = next(iter(self._lines), None)
        if key is None:
            return None
        line = self._lines.pop(key)
        item = line.popleft()
        self._count -= 1
        if line:
            self._lines[key] = line  # the last in the order of turns
        return item


class SharedLines(Generic[T]):
    """Lines for work of which `most` pieces may be under way at a time, and `each` of one key. What `take`
    returns is under way until `done` is called for its key."""

    def __init__(self, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._waiting: dict[Hashable, deque[T]] = {}
        self._under_way: Counter[Hashable] = Counter()
        self._total = 0
        self._held = 0
        self._ready: dict[Hashable, None] = {}
        """The keys that may have one more piece under way, in the order of their turns."""

    def put(self, key: Hashable, item: T) -> None:
        """Add a piece of work."""
        self._waiting.setdefault(key, deque()).append(item)
        self._held += 1
        self._line_up(key)

    def take(self) -> T | None:
        """The piece whose turn it is, or None if nothing waits or enough is under way."""
        if not self._ready or self._total >= self._most:
            return None
        key = next(iter(self._ready))
        del self._ready[key]
        item = self._waiting[key].popleft()
        if not self._waiting[key]:
            del self._waiting[key]
        self._under_way[key] += 1
        self._total += 1
        self._line_up(key)
        return item

    def done(self, key: Hashable) -> None:
        """A piece of this key is done."""
        self._held -= 1
        self._total -= 1
        self._under_way[key] -= 1
        if not self._under_way[key]:
            del self._under_way[key]
        self._line_up(key)

    def count(self, key: Hashable) -> int:
        """How many pieces of a key wait or are under way."""
        return self._under_way[key] + len(self._waiting.get(key, ()))

    def __len__(self) -> int:
        return self._held

    def clear(self) -> None:
        """Forget what waits."""
        self._held = self._total
        self._waiting.clear()
        self._ready.clear()

    def _line_up(self, key: Hashable) -> None:
        if key in self._waiting and self._under_way[key] < self._each:
            self._ready.setdefault(key)
