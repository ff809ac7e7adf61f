"""From samples to the rows of the table."""

from collections.abc import Sequence
from dataclasses import dataclass

GOAL_SECONDS = 0.05
LOGIN_GOAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Times:
    """How long what others did took, in seconds: the 99th percentile of publishes (to the PUBACK) and calls,
    and the worst first login, as there are few."""

    publish: float
    call: float
    login: float

    @classmethod
    def of(cls, publishes: Sequence[float], calls: Sequence[float], logins: Sequence[float]) -> "Times":
        """From the samples of each kind, in ascending order."""
        return cls(percentile(publishes, 0.99), percentile(calls, 0.99), percentile(logins, 1.0))

    def limits(self) -> "Times":
        """What they may become under an attack, if these are the times of an idle node."""
        publish, call = (max(GOAL_SECONDS, 2 * each) for each in (self.publish, self.call))
        return Times(publish, call, max(LOGIN_GOAL_SECONDS, 2 * self.login))

    def exceeds(self, limits: "Times") -> bool:
        """Whether any of them is longer than its limit."""
        return self.publish > limits.publish or self.call > limits.call or self.login > limits.login


@dataclass(frozen=True, slots=True)
class Row:
    """What one attack did: the times of others, the node's memory before and at its peak (KiB), the share of
    a core that the node used, and the seconds until others noticed nothing any more; None if they still did
    at the end."""

    title: str
    times: Times
    rss_before: float
    rss_peak: float
    cpu: float
    recovery: float | None

    def failed(self, limits: Times) -> bool:
        """Whether others noticed too much, or did not recover."""
        return self.recovery is None or self.times.exceeds(limits)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that is at least as large as this share of all; 0 without values."""
    if not ascending:
        return 0.0
    return ascending[max(-int(-share * len(ascending) // 1), 1) - 1]
