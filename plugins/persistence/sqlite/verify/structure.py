"""The file itself: SQLite's own check, one table at a time."""

import sqlite3
from collections.abc import Iterator

from broker.ports import Verified
from plugins.persistence.sqlite.verify.walk import Walk
from plugins.persistence.sqlite_files import check_table, tables


def check_structure(walk: Walk) -> Iterator[Verified]:
    """Pages, indexes, unique keys, and rows of a session that is not there."""
    names = tables(walk.connection)
    for done, table in enumerate(names):
        try:
            for line in check_table(walk.connection, table):
                walk.found("damaged", f"table {table}", line)
            for _, row, parent, _ in walk.rows(f"PRAGMA foreign_key_check('{table}')"):
                walk.found("dangling", f"table {table}", f"row {row} refers to no row of {parent}")
        except sqlite3.Error as error:
            walk.found("damaged", f"table {table}", f"cannot be read: {error}")
        walk.pause()
        yield from walk.report(done + 1, len(names))
