"""Checks of everything in the database, for `imctl verify`.

Each part is a generator that reads a bounded number of rows in a transaction of its own and then reports. So
no snapshot is held for long, which would keep the write-ahead log from being reset, and what is written
between two reports cannot be taken for damage.
"""

import sqlite3
from collections.abc import Callable, Iterator

from broker.ports import Verified
from plugins.persistence.sqlite.verify.logs import check_logs
from plugins.persistence.sqlite.verify.references import (
    check_amendments,
    check_ids,
    check_keys,
    check_mentions,
    check_sent,
    check_watermarks,
)
from plugins.persistence.sqlite.verify.sessions import check_retained, check_sessions
from plugins.persistence.sqlite.verify.structure import check_structure
from plugins.persistence.sqlite.verify.walk import Walk

_PARTS: dict[str, Callable[[Walk], Iterator[Verified]]] = {
    "file": check_structure,
    "logs": check_logs,
    "log numbers": check_keys,
    "message ids": check_ids,
    "senders": check_sent,
    "amendments": check_amendments,
    "mentions": check_mentions,
    "watermarks": check_watermarks,
    "sessions": check_sessions,
    "retained messages": check_retained,
}


def verification(connection: sqlite3.Connection) -> Iterator[Verified]:
    """Check the whole database. A part that cannot be read to its end is a finding, and the next one
    follows."""
    for part, check in _PARTS.items():
        walk = Walk(connection, part)
        try:
            yield from check(walk)
            yield walk.end()
        except sqlite3.Error as error:
            walk.found("damaged", "parley.db", f"{part}: cannot be read any further: {error}")
            yield walk.end()
