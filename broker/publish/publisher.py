"""A client that publishes."""

from collections.abc import Collection

from broker.domain.topics import Topic
from broker.ports import Principal


class Publisher:
    """A client that publishes, and where it may: topics it was allowed, until a right changes.

    `epoch` is the registry's when the client was authenticated.
    """

    __slots__ = ("epoch", "permits", "principal")

    def __init__(self, principal: Principal, epoch: int = 0) -> None:
        self.principal = principal
        self.epoch = epoch
        self.permits: dict[str, Topic] = {}

    def forget_permits(self, topics: Collection[str] | None = None) -> None:
        """Ask anew, about some topics or all. What is being asked now is not remembered: its answer may
        be out of date."""
        kept = self.permits.items() if topics is not None else ()
        self.permits = {name: topic for name, topic in kept if name not in (topics or ())}
