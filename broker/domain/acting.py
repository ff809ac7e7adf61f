"""On whose behalf a task works: the stores serve those who wait in turns.

A user's id, an address before anybody is authenticated, or SERVER for what the server does by itself.
"""

from contextvars import ContextVar

SERVER = ""

_whose: ContextVar[str] = ContextVar("whose", default=SERVER)

acting_for = _whose.set
"""From now on this task works on behalf of somebody."""
whose = _whose.get
"""On whose behalf this task works."""
