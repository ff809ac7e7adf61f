"""A persistence plugin as one written outside the project: everything in memory.

It imports broker.ports, broker.domain, msgspec and amqtt's base class only, and passes the suites in
tests/ports. Its contents last as long as the process, so it is for tests and demonstrations.
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
