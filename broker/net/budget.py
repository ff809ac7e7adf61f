"""The memory of all outboxes of a node. Sans-IO.

Each outbox may hold as many bytes as are still free, but not more than `each` and not less than `LEAST`: a
dynamic threshold (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998). So readers that take
nothing share the memory and leave some of it free, whatever their number. As less and less is free, the
fullest are the first that must not grow, and a reader that keeps up, and so holds next to nothing, notices
nothing. Bytes that several outboxes share, as those of a QoS 0 message, are counted in each: too many rather
than too few.
"""

from collections import Counter
from typing import Protocol

LEAST = 16 * 1024
"""Bytes that each outbox may hold whatever the others do: a reader that keeps up needs no more."""


class Measured(Protocol):
    """An outbox."""

    def measure(self) -> None:
        """Count again what it holds."""
        ...


class Budget:
    """At most `most` bytes in all outboxes together, and `each` in one of them. `limited` counts how often
    an outbox was full for the sake of others."""

    __slots__ = ("_holding", "_limited", "_most", "allowed", "each", "held")

    def __init__(self, each: int, most: int, limited: Counter[str]) -> None:
        self.each = each
        self._most = most
        self._limited = limited
        self._holding: set[Measured] = set()
        self.held = 0
        """Bytes in all outboxes, as they were measured last."""
        self.allowed = each
        """Bytes that an outbox may hold now. With more it is full."""

    @property
    def free(self) -> int:
        """Bytes that are left for all, but at least those that each may hold whatever the others do."""
        return max(self._most - self.held, LEAST)

    def changed(self, outbox: Measured, before: int, now: int) -> None:
        """An outbox holds `now` bytes, and held `before` when it was measured last."""
        if not before:
            self._holding.add(outbox)
        elif not now:
            self._holding.discard(outbox)
        self.held += now - before
        self._allow()

    def resize(self, each: int) -> None:
        """Change how many bytes one outbox may hold."""
        self.each = each
        self._allow()
        self._measure_all()

    def _allow(self) -> None:
        self.allowed = min(self.each, self.free)

    def filled(self, size: int) -> None:
        """An outbox of `size` bytes is full now."""
        if size <= self.each:
            self._limited["outboxes_bytes"] += 1

    def look_again(self) -> None:
        """To be called now and then: a transport does not tell of each byte that it got rid of."""
        if self.allowed < max(self.each, LEAST):
            self._measure_all()

    def _measure_all(self) -> None:
        for outbox in tuple(self._holding):
            outbox.measure()
