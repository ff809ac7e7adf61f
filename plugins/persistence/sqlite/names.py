"""Interned names: logs as numbers, so that rows and indexes stay narrow."""

import sqlite3

_CACHED = 100_000


class Names:
    """The numbers of names as one connection sees them, the last used ones in memory.

    To be used on the connection's thread."""

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
        """The number of a name, given now if it had none: part of the transaction."""
        known = self._ids.get(name)
        if known is None:
            known = self.find(name)
        if known is None:
            cursor = self._connection.execute("INSERT INTO names (name) VALUES (?)", (name,))
            self._new.append(name)
            known = self._remember(name, cursor.lastrowid or 0)
        return known

    def committed(self) -> None:
        """The transaction is on disk, and so are its names."""
        self._new.clear()

    def rolled_back(self) -> None:
        """The transaction was undone, and so were its names."""
        for name in self._new:
            self._ids.pop(name, None)
        self._new.clear()

    def _remember(self, name: str, number: int) -> int:
        if len(self._ids) >= _CACHED:
            self._ids.clear()
        self._ids[name] = number
        return number
