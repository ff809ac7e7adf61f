"""Inserts many rows in few steps.

The sqlite3 module gives Python's lock away for each step of a statement, and must wait until it gets it back.
While the event loop computes, that wait is up to a switch interval, and `executemany` takes a step for each
row: a batch of some hundred messages took a quarter of a second, and all of the next batch waited for it.
A statement with the values of many rows is one step.
"""

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

_BLOCKS = (256, 64, 16, 4)
"""Rows of a step. Few sizes, so that the connection's cache of statements holds them all. SQLite takes at
least 32,766 values."""
_FEW = 16
"""Fewer rows than these cost less by `executemany`."""


def insert(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
    """As `executemany`, for an INSERT with one list of parameters, `(?, …)`."""
    at = 0
    if len(rows) >= _FEW:
        for size in _BLOCKS:
            while len(rows) - at >= size:
                values = tuple(chain.from_iterable(rows[at : at + size]))
                connection.execute(_repeated(statement, size), values)
                at += size
    connection.executemany(statement, rows[at:] if at else rows)


@lru_cache(maxsize=64)
def _repeated(statement: str, times: int) -> str:
    head, _, tail = statement.partition("VALUES (")
    parameters, _, tail = tail.partition(")")
    return f"{head}VALUES {', '.join([f'({parameters})'] * times)}{tail}"
