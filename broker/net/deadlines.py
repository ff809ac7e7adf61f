"""Deadlines of many connections at the cost of one timer.

A connection is looked at when its deadline may have come, and says when to look again. One
that is busy is thus looked at once per keep-alive, however many packets it sends.
"""

from typing import Protocol


class Watched(Protocol):
    """What has deadlines."""

    def check(self, now: float) -> float | None:
        """Act on what is overdue at `now` (seconds); returns when to look next, None for never."""
        ...


class Deadlines:
    """Buckets of one second. Sans-IO: `tick(now)` is called about once a second."""

    def __init__(self) -> None:
        self._buckets: dict[int, set[Watched]] = {}
        self._places: dict[Watched, int] = {}
        self._ticked = 0

    def watch(self, watched: Watched, at: float) -> None:
        """Have `watched` checked soon after `at`, in place of an earlier time."""
        self.forget(watched)
        bucket = max(int(at) + 1, self._ticked + 1)
        self._places[watched] = bucket
        self._buckets.setdefault(bucket, set()).add(watched)

    def forget(self, watched: Watched) -> None:
        """Stop watching."""
        bucket = self._places.pop(watched, None)
        if bucket is not None:
            members = self._buckets[bucket]
            members.discard(watched)
            if not members:
                del self._buckets[bucket]

    def tick(self, now: float) -> None:
        """Check all that are due at `now`."""
        self._ticked = int(now)
        for bucket in sorted(second for second in self._buckets if second <= self._ticked):
            for watched in list(self._buckets.get(bucket, ())):
                if self._places.get(watched) != bucket:
                    continue  # forgotten, or put off, by a check of this same round
                self.forget(watched)
                again = watched.check(now)
                if again is not None:
                    self.watch(watched, again)
