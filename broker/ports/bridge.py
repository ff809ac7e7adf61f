"""What the services stand on."""

from collections.abc import Awaitable, Callable
from typing import Protocol


class BridgePort(Protocol):
    """What bridge handlers stand on: it is the same in the node and as a service of its own."""

    def subscribe(self, topic_filter: str, callback: Callable[[str, bytes], Awaitable[None]]) -> None:
        """Have `callback(topic, payload)` awaited for each message on the filter."""
        ...

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish as the server."""
        ...
