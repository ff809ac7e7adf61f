"""The SQLite store as an amqtt plugin."""

from dataclasses import dataclass

from amqtt.contexts import BaseContext
from amqtt.plugins.base import BasePlugin

from broker.ports import StoreContext, Stores
from plugins.persistence.compression import Compression
from plugins.persistence.sqlite.conversation_store import SqliteConversationStore
from plugins.persistence.sqlite.database import open_database
from plugins.persistence.sqlite.identity import SqliteIdentity
from plugins.persistence.sqlite.message_log import SqliteMessageLog
from plugins.persistence.sqlite.state_store import SqliteStateStore
from plugins.persistence.sqlite.upkeep import SqliteUpkeep

FILE = "parley.db"
"""The database file in the data directory."""


class SqlitePersistencePlugin(BasePlugin[BaseContext]):
    """See `broker.ports.PersistencePlugin`."""

    @classmethod
    async def open_stores(cls, options: "SqlitePersistencePlugin.Config", context: StoreContext) -> Stores:
        """Open or create `parley.db` in the data directory. Raises `StoreError`."""
        packing = Compression(options.compress_from, options.compression, options.compression_level)
        compression = packing if options.compress_from > 0 else None
        database = open_database(context.data_dir / FILE)
        return Stores(
            SqliteMessageLog(database, compression),
            SqliteStateStore(database),
            SqliteConversationStore(database),
            SqliteIdentity(database),
            database.close,
            SqliteUpkeep(context.data_dir / FILE),
        )

    @dataclass
    class Config:
        """The options; docs/plugins.md describes them."""

        compress_from: int = 0
        compression: str = "zstd"
        compression_level: int = 3
