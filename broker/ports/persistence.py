"""The persistence plugin, which provides the stores of a node.

The `plugins:` section of the configuration names one such class. The node asks this class for the stores
before it creates an instance of any plugin. So the broker does not know the implementation.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from broker.ports.conversations import ConversationStore
from broker.ports.identity import Identified
from broker.ports.messages import MessageLog
from broker.ports.states import StateStore
from broker.ports.upkeep import Upkeep


class StoreContext(msgspec.Struct, frozen=True):
    """The node's information for a persistence plugin, beside the plugin's own options."""

    data_dir: Path
    """The node's data directory, for the files of an embedded store. It exists, and no other node uses it
    while the stores are open."""


class Stores(msgspec.Struct, frozen=True):
    """The open stores of one node.

    They share their data: when `messages.append` or `states.apply` has returned, all three stores see what
    it wrote. Their methods are called from the event loop that opened them, several at a time.
    """

    messages: MessageLog
    states: StateStore
    conversations: ConversationStore
    identified: Identified
    """Where the identity of these stores is kept."""
    close: Callable[[], Awaitable[None]]
    """Finish the running calls, then release files, connections and threads. Awaited once, when no other
    part of the node is running. Later calls raise `StoreError`."""
    upkeep: Upkeep | None = None
    """Checks and copies, if the plugin offers them."""


class PersistencePlugin(Protocol):
    """An amqtt plugin class that provides the stores. When they are open, the node also creates an instance
    of it, as of any plugin."""

    @classmethod
    async def open_stores(cls, options: Any, context: StoreContext) -> Stores:
        """Open the stores. Create them if there are none, and migrate older ones.

        `options` is an instance of the class's own `Config`, filled from the configuration and checked.
        No client can connect before this returns, so a store on a server must limit its attempts to reach
        the server.

        Raises:
            StoreError: the stores cannot be opened, or were written by a newer version. The text is one
                line that names the store and the reason. Nothing is left open.
        """
        ...
