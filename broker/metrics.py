"""What a node counts. Every drop and refusal is counted by its reason."""

from collections import Counter


class Metrics:
    """Counters since the node started."""

    __slots__ = (
        "bytes_received",
        "commit_failures",
        "connections",
        "delivered",
        "disconnects",
        "dropped",
        "published",
        "refused",
        "stored",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.disconnects: Counter[str] = Counter()
        self.published = 0
        self.stored = 0
        self.delivered = 0
        self.commit_failures = 0
        self.bytes_received = 0
        self.dropped: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def drop(self, reason: str) -> None:
        """Count a message that was given up."""
        self.dropped[reason] += 1

    def as_dict(self) -> dict[str, int]:
        """Flat names -> values, the labelled counters as `name.label`."""
        flat: dict[str, int] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, Counter):
                flat |= {f"{name}.{label}": count for label, count in sorted(value.items())}
            else:
                flat[name] = value
        return flat
