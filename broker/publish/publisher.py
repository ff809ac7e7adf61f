"""A client in its role as publisher."""

from collections.abc import Collection

from broker.domain.topics import Topic
from broker.ports import Principal


class Publisher:
    """A client that publishes, and its permits: the topics it was allowed, until a right changes.

    `epoch` is `Registry.epoch` at the time the client was authenticated.
    """

    __slots__ = ("client_id", "epoch", "permits", "principal")

    def __init__(self, principal: Principal, epoch: int = 0, client_id: str = "") -> None:
        self.principal = principal
        self.epoch = epoch
        self.client_id = client_id
        self.permits: dict[str, Topic] = {}

    def forget_permits(self, topics: Collection[str] | None = None) -> None:
        """Drop the permits of some topics, or all, so that the gate is asked again.

        The dictionary is replaced: a permit that is being asked for now goes to the old one, because its
        answer may be out of date."""
        kept = self.permits.items() if topics is not None else ()
        self.permits = {name: topic for name, topic in kept if name not in (topics or ())}
