"""What the nodes of a cluster tell each other.

The stores alone say what is true. A backplane says whose turn it is to append, and that something has
happened. Whatever it forgets, repeats or delays costs time, never a message: entries that a hint has not
announced are found in the log, and a store refuses a place that is taken, whoever believes that it is their
turn.

No method raises. A method that cannot reach the other nodes says so by its result, or does nothing; the
parts call `on_break` and `on_return` when the nodes are lost and found again, and what may have been missed
meanwhile is then read from the stores.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec


class Head(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The end of a log: its last offset, and for a conversation `domain.message.Count`."""

    offset: int
    n: int = 0
    last: int = 0


class Taken(msgspec.Struct, frozen=True, gc=False):
    """The result of `Turns.take`."""

    granted: Sequence[bool]
    """For each group of logs, whether this node has the turn of all of them."""
    heads: Mapping[str, Head]
    """The heads that are known of logs that were granted. The others must be read from the store. A head
    may be too low, never too high."""


class Turns(Protocol):
    """Who appends to which logs. A turn is a hint that saves nodes from colliding; the store is the guard."""

    async def take(self, groups: Sequence[Sequence[str]]) -> Taken:
        """Ask for the turn of the logs of each group: all of its logs or none. A group is also denied if an
        earlier one that was denied has a log in common with it, so that messages of one conversation keep
        their order. A turn lapses by itself if its node does not renew it, which it does until `give_back`.
        What was denied may be asked for again when `freed` has returned.

        If the other nodes cannot be reached, everything is granted and no head is known."""
        ...

    async def freed(self) -> None:
        """Wait until a log that was denied may be free, at most for a short time."""
        ...

    def give_back(self, heads: Mapping[str, Head | None]) -> None:
        """End the turn of these logs. Their heads are what the store has committed; None: unknown."""
        ...


class Hint(msgspec.Struct, frozen=True, gc=False):
    """A message for the subscribers of one topic on other nodes. `body` is the sender's to choose."""

    topic: str
    body: bytes


class Hints(Protocol):
    """Publications that other nodes have readers for."""

    def publish(self, hints: Sequence[Hint]) -> None:
        """Tell the other nodes that follow these topics, in this order for each topic."""
        ...

    def follow(self, topic_filter: str) -> None:
        """This node has a reader of a topic, or of the topics that a filter with wildcards matches: it gets
        their hints soon, see `followed`. A hint comes once, however many filters match its topic."""
        ...

    async def followed(self) -> None:
        """Wait until all that this node follows so far is in effect: whatever other nodes publish from now
        on is received. At most a second, if the other nodes cannot be reached."""
        ...

    def unfollow(self, topic_filter: str) -> None:
        """This node has no such reader any more."""
        ...


class Mail(Protocol):
    """Messages from node to node. A kind is a word; an unknown kind is dropped and counted, because the
    nodes of two neighbouring releases run side by side."""

    def send(self, node: str | None, kind: str, body: bytes) -> None:
        """Send to a node; None for all other nodes. Messages to one node arrive in their order, or not at
        all."""
        ...

    async def ask(self, node: str, kind: str, body: bytes, seconds: float) -> bytes | None:
        """Send, and wait for the answer. None: there was none in this time."""
        ...

    def on(self, kind: str, received: Callable[[str, bytes], None]) -> None:
        """Call `received(node, body)` for messages of a kind."""
        ...

    def on_question(self, kind: str, answer: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        """Answer the questions of a kind."""
        ...


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A node as the others see it."""

    name: str
    number: int
    """The node's number in its message ids."""
    role: str
    pid: int
    host: str
    version: str
    addresses: Mapping[str, str]
    """Listener, `grpc`, `http` -> host:port."""
    started_at: int
    """Unix ms."""
    connections: int = 0
    ready: bool = False
    reason: str = ""
    """Why it is not ready."""


class Members(Protocol):
    """The nodes that live. A node says so every 10 s; without a word for 40 s it is gone. Each has a name of
    its own: a node does not start if another process has its name and gives a sign of life."""

    async def announce(self, member: Member) -> None:
        """What the others should know of this node, from now on."""
        ...

    async def all(self) -> list[Member] | None:
        """All nodes that live, by name. None: they cannot be reached."""
        ...

    def on_gone(self, gone: Callable[[str], Awaitable[None]]) -> None:
        """Call `gone(name)` when a node has gone without a word, on one of the nodes that live: whoever
        notices first cleans up after it. Called again if the caller dies in the middle of it."""
        ...

    def on_replaced(self, replaced: Callable[[], None]) -> None:
        """Call `replaced` when another process has the name of this node by now, because this one stood still
        for so long: it must end."""
        ...


class Whereabouts(msgspec.Struct, frozen=True):
    """A connected device."""

    client_id: str
    gateway: str
    """The name of its node."""
    connection_id: str
    connected_at: int
    """Unix ms."""


class Placed(msgspec.Struct, frozen=True):
    """A device is known to be connected."""

    devices: int
    """How many devices its user has now, on all nodes."""
    instead_of: Whereabouts | None = None
    """An earlier connection of the device, which had not been taken back."""


class Devices(Protocol):
    """Where the users of all nodes are connected."""

    async def connected(self, user: str, device: Whereabouts) -> Placed | None:
        """A device of this node has connected. None: unknown. Calls take effect in their order."""
        ...

    async def disconnected(self, user: str, client_id: str, connection_id: str) -> int | None:
        """It has gone. Changes nothing if the device has another connection by now, on whatever node. Returns
        how many devices the user has now; None: unknown."""
        ...

    async def of(self, users: Sequence[str]) -> dict[str, list[Whereabouts]] | None:
        """User -> connected devices; users without any are left out. One round trip for up to 1,000 users.
        None: unknown."""
        ...

    async def forget(self, gateway: str) -> dict[str, int] | None:
        """Remove the devices of a node that is gone. Returns user -> how many devices remain, of the users
        who had one there. Given the name of this node, those of its earlier process, which had not removed
        them, are meant; `Members.on_gone` tells of it."""
        ...


class Backplane(Protocol):
    """What a node needs of the others."""

    @property
    def name(self) -> str:
        """Of this node."""
        ...

    @property
    def turns(self) -> Turns: ...

    @property
    def hints(self) -> Hints: ...

    @property
    def mail(self) -> Mail: ...

    @property
    def members(self) -> Members: ...

    @property
    def devices(self) -> Devices: ...

    def on_hint(self, received: Callable[[Hint], None]) -> None:
        """Call `received` with the hints of topics that this node follows, its own left out."""
        ...

    def on_break(self, broken: Callable[[], None]) -> None:
        """Call `broken` when the other nodes cannot be reached any more: hints and mail are being missed."""
        ...

    def on_return(self, returned: Callable[[], None]) -> None:
        """Call `returned` when they can be reached again. The backplane has told them of this node's
        devices and of the topics it follows. What was missed meanwhile must be looked up."""
        ...

    async def close(self) -> None:
        """Say that this node goes, give back what it holds, release connections."""
        ...
