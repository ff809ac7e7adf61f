"""A persistence plugin as somebody outside the project would write it: everything in memory.

It stands on broker.ports, broker.domain, msgspec and amqtt's base class, and passes the suites in
tests/ports. What it keeps lasts as long as the process, so it is for tests and demonstrations.
"""

from .contents import Contents, Opened
from .conversation_store import MemoryConversationStore
from .message_log import MemoryMessageLog
from .plugin import MemoryPersistencePlugin
from .state_store import MemoryStateStore

__all__ = [
    "Contents",
    "MemoryConversationStore",
    "MemoryMessageLog",
    "MemoryPersistencePlugin",
    "MemoryStateStore",
    "Opened",
]
