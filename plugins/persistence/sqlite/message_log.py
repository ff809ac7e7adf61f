"""MessageLog on SQLite."""

import sqlite3
from collections.abc import Iterable, Sequence

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Entry, Stamped
from broker.domain.topics import inbox_topic
from broker.ports import DedupKey
from plugins.persistence.sqlite.database import Database

_OFFSET_BITS = 32
_OFFSETS = 1 << _OFFSET_BITS

_NAMES_CACHED = 100_000

_IN_LOG = "key > ? AND key < ?"
_READ_CONVERSATION = "SELECT key, body, qos FROM messages WHERE " + _IN_LOG + " ORDER BY key {order} LIMIT ?"
_READ_INBOX = (
    "SELECT entries.key, body, qos FROM entries JOIN messages ON messages.key = message "
    "WHERE entries." + _IN_LOG.replace("AND key", "AND entries.key") + " ORDER BY entries.key {order} LIMIT ?"
)


def _is_inbox(log: str) -> bool:
    return log.startswith("users/")


class _Names:
    """Interned names of one connection's thread, the last used ones in memory."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def find(self, connection: sqlite3.Connection, name: str) -> int | None:
        known = self._ids.get(name)
        if known is None:
            row = connection.execute("SELECT id FROM names WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            known = self.remember(name, row[0])
        return known

    def remember(self, name: str, number: int) -> int:
        if len(self._ids) >= _NAMES_CACHED:
            self._ids.clear()
        self._ids[name] = number
        return number

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._ids.pop(name, None)


class SqliteMessageLog:
    """See `broker.ports.MessageLog`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written = _Names()
        self._read = _Names()

    async def append(self, batch: Sequence[Stamped]) -> None:
        new: list[str] = []
        try:
            await self._database.write(
                lambda connection: self._append(connection, batch, new),
                undo=lambda: self._written.forget(new),  # these names are rolled back, too
            )
        except StoreError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise DuplicateMessageError(str(error)) from error
            raise

    def _append(self, connection: sqlite3.Connection, batch: Sequence[Stamped], new: list[str]) -> None:
        def number(name: str) -> int:
            known = self._written.find(connection, name)
            if known is None:
                cursor = connection.execute("INSERT INTO names (name) VALUES (?)", (name,))
                new.append(name)
                known = self._written.remember(name, cursor.lastrowid or 0)
            return known

        messages = []
        entries = []
        for stamped in batch:
            draft = stamped.draft
            key = number(draft.conversation_id) << _OFFSET_BITS | stamped.seq
            sender = number(inbox_topic(draft.sender))
            messages.append((key, sender, draft.content.client_msg_id, draft.qos, stamped.body))
            for log, offset in zip(draft.logs, stamped.offsets, strict=True):
                entries.append((number(log) << _OFFSET_BITS | offset, key))
        connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?)", messages)
        connection.executemany("INSERT INTO entries VALUES (?, ?)", entries)

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        return await self._database.read(lambda connection: self._heads(connection, logs))

    def _heads(self, connection: sqlite3.Connection, logs: Sequence[str]) -> dict[str, int]:
        heads = {}
        for log in logs:
            number = self._read.find(connection, log)
            heads[log] = 0 if number is None else _head(connection, log, number)
        return heads

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return await self._database.read(
            lambda connection: _within(self._scan(connection, log, after, _OFFSETS, limit, "ASC"), max_bytes)
        )

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        found = await self._database.read(
            lambda connection: _within(self._scan(connection, log, 0, before, limit, "DESC"), max_bytes)
        )
        return found[::-1]

    def _scan(
        self, connection: sqlite3.Connection, log: str, after: int, before: int, limit: int, order: str
    ) -> Iterable[Entry]:
        number = self._read.find(connection, log)
        if number is None:
            return
        sql = (_READ_INBOX if _is_inbox(log) else _READ_CONVERSATION).format(order=order)
        base = number << _OFFSET_BITS
        # Whatever offsets are asked for, no other log is read.
        lower, upper = (base + max(0, min(offset, _OFFSETS)) for offset in (after, before))
        for key, body, qos in connection.execute(sql, (lower, upper, limit)):
            yield Entry(key - base, body, qos)

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        def job(connection: sqlite3.Connection) -> dict[DedupKey, bytes]:
            found = {}
            for key in keys:
                sender = self._read.find(connection, inbox_topic(key.sender))
                conversation = self._read.find(connection, key.conversation_id)
                row = connection.execute(
                    "SELECT body FROM messages WHERE sender = ? AND key >> 32 = ? AND client_msg_id = ?",
                    (sender, conversation, key.client_msg_id),
                ).fetchone()
                if row is not None:
                    found[key] = row[0]
            return found

        return await self._database.read(job)


def _within(entries: Iterable[Entry], max_bytes: int) -> list[Entry]:
    """Entries until they exceed `max_bytes`, at least one."""
    taken: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.body)
        if size > max_bytes and taken:
            break
        taken.append(entry)
    return taken


def _head(connection: sqlite3.Connection, log: str, number: int) -> int:
    table = "entries" if _is_inbox(log) else "messages"
    base = number << _OFFSET_BITS
    row = connection.execute(
        f"SELECT max(key) FROM {table} WHERE {_IN_LOG}", (base, base + _OFFSETS)
    ).fetchone()
    return 0 if row[0] is None else int(row[0]) - base
