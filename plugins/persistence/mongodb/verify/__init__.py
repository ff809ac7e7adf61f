"""Checks of everything in the database, for `imctl verify`.

Documents are read some at a time, and what they refer to afterwards. What is written together is seen
together, and messages are never deleted. So what is written meanwhile cannot be taken for damage.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from broker.ports import Verified
from plugins.persistence.mongodb.client import Database
from plugins.persistence.mongodb.verify.logs import check_logs
from plugins.persistence.mongodb.verify.references import (
    check_amendments,
    check_ids,
    check_mentions,
    check_places,
    check_sent,
    check_watermarks,
)
from plugins.persistence.mongodb.verify.sessions import check_retained, check_sessions
from plugins.persistence.mongodb.verify.walk import Walk

_PARTS: dict[str, Callable[[Walk], AsyncGenerator[Verified]]] = {
    "logs": check_logs,
    "places": check_places,
    "message ids": check_ids,
    "senders": check_sent,
    "amendments": check_amendments,
    "mentions": check_mentions,
    "watermarks": check_watermarks,
    "sessions": check_sessions,
    "retained messages": check_retained,
}


async def verification(database: Database) -> AsyncGenerator[Verified]:
    """Check the whole database. Raises `StoreError` if it cannot be read."""
    for part, check in _PARTS.items():
        walk = Walk(database, part)
        async with aclosing(check(walk)) as reports:
            async for report in reports:
                yield report
        yield walk.report(1, 1)
