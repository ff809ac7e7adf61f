"""Reads a range of a log, whatever is damaged in it.

SQLite reports a damaged page as an error in the middle of a query, and may also skip rows. Offsets have no
gaps, so it is known which rows are missing: they are handed out without a body. After an error the rows are
read one by one.
"""

import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from plugins.persistence.sqlite.bodies import BODY
from plugins.persistence.sqlite.database import first_row, is_corrupt
from plugins.persistence.sqlite.stored import Row

_COLUMNS = f"{BODY} AS body, qos, properties, checksum"
_ONE_MESSAGE = f"SELECT key, key, {_COLUMNS} FROM messages WHERE key = ?"
_ONE_ENTRY = "SELECT message FROM entries WHERE key = ?"
_OFFSET = (1 << 32) - 1
_ORDER = {1: "ASC", -1: "DESC"}

_MOST_MISSING = 10_000
"""A damaged page of 4 KiB loses some hundred rows at most."""


class Table(NamedTuple):
    """A table with the rows of logs."""

    name: str
    scan: str
    """The query for a range: two bounds, both excluded, and a limit."""
    one: Callable[[sqlite3.Connection, int], Row] | None
    """Reads the row of a key. None for a table whose oldest rows are deleted: its logs begin anywhere."""


def scan(
    connection: sqlite3.Connection, table: Table, lower: int, upper: int, limit: int, *, backwards: bool
) -> Iterator[Row]:
    """At most `limit` rows with keys between the two bounds, in ascending order or backwards.

    Raises:
        sqlite3.DatabaseError: the file is damaged where the range ends, so its end is unknown.
    """
    step = -1 if backwards else 1
    gapless = table.one is not None
    expected = (_newest(connection, table, upper) if backwards else lower + 1) if gapless else None
    left = limit
    try:
        for values in connection.execute(table.scan.format(order=_ORDER[step]), (lower, upper, limit)):
            row = Row(*values)
            if not lower < row.key < upper:
                continue  # damage may lead a query to other places
            if expected is not None and row.key != expected:
                if _is_misplaced(connection, table, row, expected, step):
                    continue
                for key in _missing(expected, row.key, step)[:left]:
                    yield _one(connection, table, key)
                    left -= 1
            if not left:
                return
            yield row
            expected, left = row.key + step if gapless else None, left - 1
    except sqlite3.DatabaseError as error:
        if not gapless or not is_corrupt(error):
            raise
        first = expected or last_key(connection, table, lower, upper)
        last = lower if backwards else last_key(connection, table, lower, upper)
    else:
        if not backwards or expected is None:
            return
        first, last = expected, lower
    # The rest of the range, which the query did not reach.
    for key in _missing(first, last + (not backwards), step)[:left]:
        yield _one(connection, table, key)


def _newest(connection: sqlite3.Connection, table: Table, upper: int) -> int | None:
    """The key of the last entry of a log before `upper`; None if the end of the log is damaged."""
    log = upper - 1 & ~_OFFSET
    try:
        return min(upper - 1, last_key(connection, table, log, log + _OFFSET + 1))
    except sqlite3.DatabaseError as error:
        if is_corrupt(error):
            return None
        raise


def _missing(first: int, end: int, step: int) -> range:
    """The keys from `first` on, before `end`. None if they are more than damage explains."""
    keys = range(first, end, step)
    return keys if len(keys) <= _MOST_MISSING else range(0)


def _is_misplaced(connection: sqlite3.Connection, table: Table, row: Row, expected: int, step: int) -> bool:
    """Whether damage has given a row another key: it is found where it should not be, and not where it
    should be."""
    return (row.key - expected) * step < 0 or _one(connection, table, row.key).body != row.body


def last_key(connection: sqlite3.Connection, table: Table, lower: int, upper: int) -> int:
    """The last key of a range; the one before its first if it is empty."""
    sql = f"SELECT max(key) FROM {table.name} WHERE key > ? AND key < ?"
    (key,) = connection.execute(sql, (lower, upper)).fetchone()
    return lower if key is None else int(key)


def _one(connection: sqlite3.Connection, table: Table, key: int) -> Row:
    return _lost(key, key) if table.one is None else table.one(connection, key)


def _message(connection: sqlite3.Connection, key: int) -> Row:
    found = first_row(connection, _ONE_MESSAGE, key)
    return _lost(key, key) if found is None else Row(*found)


def _inbox_entry(connection: sqlite3.Connection, key: int) -> Row:
    found = first_row(connection, _ONE_ENTRY, key)
    return _lost(key, 0) if found is None else _message(connection, found[0])._replace(key=key)


def _lost(key: int, message: int) -> Row:
    """A row that cannot be read."""
    return Row(key, message, None, 1, None, None)


MESSAGES = Table(
    "messages",
    f"SELECT key, key, {_COLUMNS} FROM messages WHERE key > ? AND key < ? ORDER BY key {{order}} LIMIT ?",
    _message,
)
ENTRIES = Table(
    "entries",
    f"SELECT entries.key, message, {_COLUMNS} FROM entries LEFT JOIN messages ON messages.key = message "
    "WHERE entries.key > ? AND entries.key < ? ORDER BY entries.key {order} LIMIT ?",
    _inbox_entry,
)
EVENTS = Table(
    "events",
    "SELECT key, key, body, 1, NULL, checksum FROM events WHERE key > ? AND key < ? "
    "ORDER BY key {order} LIMIT ?",
    None,
)


def table_of(log: str) -> Table:
    """The table with the keys of a log."""
    if not log.startswith("users/"):
        return MESSAGES
    return EVENTS if log.endswith("/events") else ENTRIES
