"""The persistence plugin: what hands the stores over to the node.

The `plugins:` section of the configuration names one such class. The node asks the class for the stores
before it makes any plugin an instance, so the broker never knows which implementation it stands on.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from broker.ports.conversations import ConversationStore
from broker.ports.messages import MessageLog
from broker.ports.states import StateStore


class StoreContext(msgspec.Struct, frozen=True):
    """What the node tells a persistence plugin beside its options."""

    data_dir: Path
    """The node's data directory: an embedded store keeps its files here. It exists, and no other node
    uses it while the stores are open."""


class Stores(msgspec.Struct, frozen=True):
    """The stores of one node, open.

    They are one: when `messages.append` or `states.apply` has returned, all three know what it wrote.
    Their methods are called from the event loop they were opened on, several at a time.
    """

    messages: MessageLog
    states: StateStore
    conversations: ConversationStore
    close: Callable[[], Awaitable[None]]
    """Finish the calls that have begun, then let go of files, connections and threads. Awaited once, when
    nothing else of the node runs any more. Calls that come later raise `StoreError`."""


class PersistencePlugin(Protocol):
    """The class of an amqtt plugin that hands over stores. The node also makes an instance of it, as of
    any plugin, when the stores are open."""

    @classmethod
    async def open_stores(cls, options: Any, context: StoreContext) -> Stores:
        """Open the stores, make them if there are none, and bring older ones up to date.

        `options`: an instance of the class's own `Config`, filled from the configuration and checked.
        Nobody can connect before this returns, so a store on a server limits its attempts to reach it.

        Raises:
            StoreError: the stores cannot be opened, or were written by a newer version; one line that
                says which store and why. Nothing is left open.
        """
        ...
