"""Queues that are served in turns, so that a long one delays nobody in the others. Sans-IO."""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Lines(Generic[T]):
    """A queue for each key; together they hold at most `most` items."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._lines: dict[str, deque[T]] = {}
        """The queues that hold something, in the order of their turns."""

    def __len__(self) -> int:
        return self._count

    def put(self, key: str, item: T) -> T | None:
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
