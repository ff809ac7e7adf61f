"""Deadlines of many connections with one timer.

A connection is checked when its deadline may have passed, and returns when to check again. So a busy
connection is checked once per keep-alive interval, however many packets it sends.
"""

from typing import Protocol


class Watched(Protocol):
    """An object with deadlines."""

    def check(self, now: float) -> float | None:
        """Act on the deadlines that have passed at `now` (seconds). Returns the time of the next check,
        None for never."""
        ...


class Deadlines:
    """Buckets of one second. Sans-IO: `tick(now)` is called about once a second."""

    def __init__(self) -> None:
        self._buckets: dict[int, set[Watched]] = {}
        self._places: dict[Watched, int] = {}
        self._ticked = 0

    def watch(self, watched: Watched, at: float | None) -> None:
        """Check `watched` within a second after `at`, or never. Replaces a time set before."""
        self.forget(watched)
        if at is None:
            return
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
        """Check all objects that are due at `now`."""
        self._ticked = int(now)
        for bucket in sorted(second for second in self._buckets if second <= self._ticked):
            for watched in list(self._buckets.get(bucket, ())):
                if self._places.get(watched) != bucket:
                    continue  # an earlier check of this tick has forgotten or postponed it
                self.forget(watched)
                self.watch(watched, watched.check(now))
