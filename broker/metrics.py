"""The counters of a node. Drops, refusals, disconnects and limits are counted by reason."""

from collections import Counter

_TOTALS = (
    *("bytes_received", "commit_failures", "connections", "delivered"),
    *("log_lines_left_out", "published", "stored", "turns_waited", "withheld"),
)


class Metrics:
    """Counters since the node started.

    `totals` has a fixed set of names. It is a plain dict and not a Counter, which is slower to count up:
    these counters change with each packet.
    """

    __slots__ = ("disconnects", "dropped", "limited", "refused", "totals")

    def __init__(self) -> None:
        self.totals: dict[str, int] = dict.fromkeys(_TOTALS, 0)
        self.disconnects: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.limited: Counter[str] = Counter()
        """Key of the section `limits` -> how often it refused something or made somebody wait."""
        self.refused: Counter[str] = Counter()

    def drop(self, reason: str) -> None:
        """Count a dropped message."""
        self.dropped[reason] += 1

    def refuse(self, reason: str) -> None:
        """Count a connection that was refused."""
        self.refused[reason] += 1

    def withhold(self, count: int) -> None:
        """Count entries that a reader got without what they are about."""
        self.totals["withheld"] += count

    def leave_out_lines(self, count: int) -> None:
        """Count lines of the log that were summed up."""
        self.totals["log_lines_left_out"] += count

    def as_dict(self) -> dict[str, int]:
        """Flat names -> values, sorted by name. A counter with reasons gives `name.reason` for each."""
        flat = dict(self.totals)
        by_reason = {
            "disconnects": self.disconnects,
            "dropped": self.dropped,
            "limited": self.limited,
            "refused": self.refused,
        }
        for name, counter in by_reason.items():
            flat |= {f"{name}.{reason}": count for reason, count in counter.items()}
        return dict(sorted(flat.items()))
