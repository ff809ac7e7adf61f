"""The stores as an amqtt plugin."""

from dataclasses import dataclass
from pathlib import Path

from amqtt.contexts import BaseContext
from amqtt.plugins.base import BasePlugin

from broker.ports import StoreContext, Stores

from .contents import Contents, Opened
from .conversation_store import MemoryConversationStore
from .identity import MemoryIdentity
from .message_log import MemoryMessageLog
from .state_store import MemoryStateStore

_contents: dict[Path, Contents] = {}
"""Data directory -> its contents, which survive closing and opening again."""


class MemoryPersistencePlugin(BasePlugin[BaseContext]):
    """See `broker.ports.PersistencePlugin`."""

    @classmethod
    async def open_stores(cls, options: "MemoryPersistencePlugin.Config", context: StoreContext) -> Stores:
        """The stores over the data that this process stored earlier for the same data directory."""
        contents = _contents.setdefault(context.data_dir, Contents())
        contents.capacity = options.capacity
        opened = Opened(contents)
        return Stores(
            MemoryMessageLog(opened),
            MemoryStateStore(opened),
            MemoryConversationStore(opened),
            MemoryIdentity(opened),
            opened.close,
        )

    @dataclass
    class Config:
        """Options in config/broker.yaml."""

        capacity: int = 1_000_000
        """The most messages that are stored. Further ones are refused."""
