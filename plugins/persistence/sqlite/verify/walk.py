"""What the parts of a check share: short transactions, the names of numbers, heads, and the report."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from broker.ports import Finding, FindingKind, Verified
from plugins.persistence.sqlite.schema import OFFSET_BITS, OFFSETS

_ROWS = 500
_BYTES = 2 * 1024 * 1024
_CACHED = 10_000


class Walk:
    """One part of a check: its transaction, and what it has found since its last report."""

    def __init__(self, connection: sqlite3.Connection, part: str) -> None:
        self.connection = connection
        self._part = part
        self._findings: list[Finding] = []
        self._checked = 0
        self._due = False
        self._names: dict[int, str | None] = {}

    # --- reading ---------------------------------------------------------------------

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query, which must have a LIMIT or few rows."""
        self._begin()
        return self.connection.execute(sql, values).fetchall()

    def page(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The first rows of a query without LIMIT: as many as one report covers. They count as checked."""
        self._begin()
        taken: list[tuple[Any, ...]] = []
        size = 0
        cursor = self.connection.execute(sql, values)
        for row in cursor:
            taken.append(row)
            size += sum(len(value) for value in row if isinstance(value, bytes))
            if len(taken) >= _ROWS or size >= _BYTES:
                self._due = True
                break
        cursor.close()
        self.count(len(taken))
        return taken

    def value(self, sql: str, *values: object) -> Any:
        """The first column of the first row; None if there is no row."""
        rows = self.rows(sql, *values)
        return rows[0][0] if rows else None

    def name(self, number: int) -> str | None:
        """The name of an interned number; None if it has none."""
        if number not in self._names:
            if len(self._names) >= _CACHED:
                self._names.clear()
            self._names[number] = self.value("SELECT name FROM names WHERE id = ?", number)
        return self._names[number]

    def number(self, name: str) -> int | None:
        """The number of a name; None if it has none."""
        found: int | None = self.value("SELECT id FROM names WHERE name = ?", name)
        return found

    def head(self, table: str, number: int) -> int:
        """The last offset of a log; 0 if it is empty."""
        base = number << OFFSET_BITS
        key = self.value(f"SELECT max(key) FROM {table} WHERE key > ? AND key < ?", base, base + OFFSETS)
        return 0 if key is None else int(key) - base

    def _begin(self) -> None:
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN")

    # --- reporting -------------------------------------------------------------------

    def count(self, rows: int) -> None:
        """So many rows were checked."""
        self._checked += rows
        self._due = self._due or self._checked >= _ROWS

    def pause(self) -> None:
        """Report next time, however little was read."""
        self._due = True

    def found(self, kind: FindingKind, where: str, detail: str) -> None:
        """Add a finding."""
        self._findings.append(Finding(kind, where, detail))
        self._due = self._due or len(self._findings) >= _ROWS

    def report(self, done: int, total: int) -> Iterator[Verified]:
        """A report, if enough was read since the last one. It ends the transaction."""
        if self._due:
            yield self._report(done, total)

    def end(self) -> Verified:
        """The last report."""
        return self._report(1, 1)

    def _report(self, done: int, total: int) -> Verified:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        findings: Sequence[Finding] = self._findings
        verified = Verified(self._part, done, total, self._checked, findings)
        self._findings, self._checked, self._due = [], 0, False
        return verified


def table_of(log: str) -> str:
    """The table with the keys of a log."""
    if not log.startswith("users/"):
        return "messages"
    return "events" if log.endswith("/events") else "entries"
