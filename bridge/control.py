"""What the services ask of the node they run in."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

import msgspec

from broker.domain.message import Body, Draft
from broker.ports import StateChange


class Device(msgspec.Struct, frozen=True):
    """A connected client; `user` is "" for an anonymous one, `address` is the other end's host:port."""

    user: str
    client_id: str
    address: str


class NodeControl(Protocol):
    """The node, as the services see it."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...

    async def send(self, sender: str, to: str, payload: bytes) -> Body:
        """Store a message as `sender` publishing `payload` to topic `to` (an inbox or group
        topic), all rules of the topic included. Returns it as stored; a `client_msg_id` sent
        before returns the first one.

        Raises:
            RefusedError: refused; `code` is the contract's.
            StoreError: the store failed.
        """
        ...

    async def prepare(self, sender: str, to: str, payload: bytes) -> Draft:
        """The message `send` would store, all rules looked at. Raises `RefusedError`."""
        ...

    async def append(self, draft: Draft) -> Body:
        """Store a message nobody needs to be asked about. Else as `send`."""
        ...

    async def save(self, changes: Sequence[StateChange]) -> None:
        """Commit changes of the state store. Raises `StoreError`."""
        ...

    def emit(self, user: str, event: dict[str, Any], *, keep: bool = True) -> None:
        """Send an event to a user's sessions; with `keep` those that are away get it later."""
        ...

    def tail(self, topic: str, after: int | None) -> AsyncIterator[bytes]:
        """The entries of an inbox or group topic as delivered JSON: those after offset `after`
        (None: from now on), then new ones as they are stored. Ends when the caller stops."""
        ...

    def tap(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        """Have `grown` called whenever the topic's log has grown; call the result to stop that."""
        ...

    async def head(self, topic: str) -> int:
        """The last offset of an inbox or group topic's log."""
        ...

    def devices(self, user: str) -> list[str]:
        """The client ids a user is connected with."""
        ...

    def connected(self) -> list[Device]:
        """All clients that are connected, in no order."""
        ...

    def issue_token(self, user: str, ttl: float) -> str:
        """A signed token that stands for the user's password for `ttl` seconds."""
        ...

    def kick(self, user: str) -> int:
        """End all connections of a user; returns how many there were."""
        ...

    def stats(self) -> dict[str, int]:
        """Counters and gauges of the node, by flat names."""
        ...
