"""What the services ask of the node they run in."""

from collections.abc import AsyncIterator
from typing import Protocol

from broker.domain.message import Body


class NodeControl(Protocol):
    """The node, as the administration and the service API see it."""

    async def send(self, sender: str, to: str, payload: bytes) -> Body:
        """Store a message as `sender` publishing `payload` to topic `to` (an inbox or group
        topic), all rules of the topic included. Returns it as stored; a `client_msg_id` sent
        before returns the first one.

        Raises:
            DirectoryError: refused; `code` is the contract's.
            StoreError: the store failed.
        """
        ...

    def tail(self, topic: str, after: int | None) -> AsyncIterator[bytes]:
        """The entries of an inbox or group topic as delivered JSON: those after offset `after`
        (None: from now on), then new ones as they are stored. Ends when the caller stops."""
        ...

    async def head(self, topic: str) -> int:
        """The last offset of an inbox or group topic's log."""
        ...

    def issue_token(self, user: str, ttl: float) -> str:
        """A signed token that stands for the user's password for `ttl` seconds."""
        ...

    def stats(self) -> dict[str, int]:
        """Counters and gauges of the node, by flat names."""
        ...
