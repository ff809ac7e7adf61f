"""What a node counts. Every drop and refusal is counted by its reason."""

from collections import Counter

_TOTALS = ("bytes_received", "commit_failures", "connections", "delivered", "published", "stored")


class Metrics:
    """Counters since the node started.

    `totals` has a fixed set of names. It is a plain dict, as its items are counted up for each
    packet; the others are told apart by their reasons.
    """

    __slots__ = ("disconnects", "dropped", "refused", "totals")

    def __init__(self) -> None:
        self.totals: dict[str, int] = dict.fromkeys(_TOTALS, 0)
        self.disconnects: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def drop(self, reason: str) -> None:
        """Count a message that was given up."""
        self.dropped[reason] += 1

    def as_dict(self) -> dict[str, int]:
        """Flat names -> values, sorted by name, the counters with reasons as `name.reason`."""
        flat = dict(self.totals)
        by_reason = {"disconnects": self.disconnects, "dropped": self.dropped, "refused": self.refused}
        for name, counter in by_reason.items():
            flat |= {f"{name}.{reason}": count for reason, count in counter.items()}
        return dict(sorted(flat.items()))
