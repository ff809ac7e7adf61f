"""The default store, embedded: one SQLite file for messages, conversations, sessions and retained
messages."""

from plugins.persistence.sqlite.conversation_store import SqliteConversationStore
from plugins.persistence.sqlite.database import Database, open_database
from plugins.persistence.sqlite.message_log import SqliteMessageLog
from plugins.persistence.sqlite.plugin import SqlitePersistencePlugin
from plugins.persistence.sqlite.state_store import SqliteStateStore

__all__ = [
    "Database",
    "SqliteConversationStore",
    "SqliteMessageLog",
    "SqlitePersistencePlugin",
    "SqliteStateStore",
    "open_database",
]
