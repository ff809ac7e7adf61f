"""Interned names: logs and users are stored as numbers, which keeps rows and indexes narrow."""

import sqlite3

_CACHED = 100_000


class Names:
    """The numbers of names as one connection sees them, with a cache.

    Not thread-safe: use it on the thread of its connection only."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ids: dict[str, int] = {}
        self._new: list[str] = []

    def find(self, name: str) -> int | None:
        """The number of a name, or None if it has none."""
        known = self._ids.get(name)
        if known is None:
            row = self._connection.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()
            if row is not None:
                known = self._remember(name, row[0])
        return known

    def intern(self, name: str) -> int:
        """The number of a name. A new name gets one as part of the running transaction."""
        known = self._ids.get(name)
        if known is None:
            known = self.find(name)
        if known is None:
            cursor = self._connection.execute("INSERT INTO names (name) VALUES (?)", (name,))
            self._new.append(name)
            known = self._remember(name, cursor.lastrowid or 0)
        return known

    def committed(self) -> None:
        """The transaction was committed: its new names are valid."""
        self._new.clear()

    def rolled_back(self) -> None:
        """The transaction was rolled back: its new names must leave the cache."""
        for name in self._new:
            self._ids.pop(name, None)
        self._new.clear()

    def _remember(self, name: str, number: int) -> int:
        if len(self._ids) >= _CACHED:
            self._ids.clear()
        self._ids[name] = number
        return number
