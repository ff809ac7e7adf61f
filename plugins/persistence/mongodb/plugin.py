"""The MongoDB store as an amqtt plugin."""

from dataclasses import dataclass

from amqtt.contexts import BaseContext
from amqtt.plugins.base import BasePlugin

from broker.ports import StoreContext, Stores
from plugins.persistence.compression import Compression
from plugins.persistence.mongodb.client import Database
from plugins.persistence.mongodb.conversation_store import MongoConversationStore
from plugins.persistence.mongodb.identity import MongoIdentity
from plugins.persistence.mongodb.message_log import MongoMessageLog
from plugins.persistence.mongodb.options import Options
from plugins.persistence.mongodb.schema import migrate
from plugins.persistence.mongodb.state_store import MongoStateStore
from plugins.persistence.mongodb.upkeep import MongoUpkeep


class MongoPersistencePlugin(BasePlugin[BaseContext]):
    """See `broker.ports.PersistencePlugin`."""

    @classmethod
    async def open_stores(cls, options: "MongoPersistencePlugin.Config", context: StoreContext) -> Stores:
        """Open the database, or create it. Nothing is kept in the data directory. Raises `StoreError`."""
        compression = Compression(options.compress_from, options.compression, options.compression_level)
        database = Database(_reaching(options))
        try:
            await database.check_servers()
            await migrate(database)
            database.serve()
        except BaseException:
            await database.close()
            raise
        return Stores(
            MongoMessageLog(database, compression),
            MongoStateStore(database),
            MongoConversationStore(database),
            MongoIdentity(database),
            database.close,
            MongoUpkeep(database),
        )

    @dataclass
    class Config:
        """The options; docs/plugins.md describes them."""

        uri: str = "mongodb://127.0.0.1:27017"
        database: str = "parley"
        pool_min: int = 10
        pool_max: int = 100
        pool_idle_seconds: int = 60
        connect_timeout_ms: int = 5_000
        select_timeout_ms: int = 5_000
        socket_timeout_ms: int = 10_000
        write_timeout_ms: int = 10_000
        settle_timeout_ms: int = 60_000
        compressors: str = "zstd,zlib"
        compress_from: int = 512
        compression: str = "zstd"
        compression_level: int = 3


def _reaching(options: MongoPersistencePlugin.Config) -> Options:
    return Options(
        options.uri,
        options.database,
        options.pool_min,
        options.pool_max,
        options.pool_idle_seconds * 1000,
        options.connect_timeout_ms,
        options.select_timeout_ms,
        options.socket_timeout_ms,
        options.write_timeout_ms,
        options.settle_timeout_ms,
        options.compressors,
    )
