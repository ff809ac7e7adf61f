"""MessageLog on SQLite."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from broker.domain.conversation import participants
from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Amendment, Count, Entry, Stamped
from broker.domain.topics import inbox_topic, parse_topic
from broker.ports import DedupKey, KeptEvent, Located
from plugins.persistence.compression import Compression
from plugins.persistence.properties import to_column
from plugins.persistence.sqlite.bodies import BODY, packed, to_columns
from plugins.persistence.sqlite.database import Database, first_row
from plugins.persistence.sqlite.names import Names
from plugins.persistence.sqlite.rows import insert
from plugins.persistence.sqlite.scanning import ENTRIES, EVENTS, last_key, scan, table_of
from plugins.persistence.sqlite.schema import OFFSET_BITS, OFFSETS
from plugins.persistence.sqlite.stored import Row, StoredBodies, checksum

_AMENDMENTS = (
    f"SELECT message, message, {BODY}, qos, properties, checksum FROM amendments "
    "JOIN messages ON key = message "
    "WHERE target = ? AND message > ? ORDER BY message LIMIT ?"
)
_LOCATE = (
    f"SELECT name, message, {BODY}, checksum FROM ids LEFT JOIN messages ON key = message "
    "JOIN names ON names.id = message >> 32 WHERE ids.id = ?"
)
_PLACE = "SELECT name, message FROM ids JOIN names ON names.id = message >> 32 WHERE ids.id = ?"
_SENT = (
    f"SELECT message, {BODY}, checksum FROM sent LEFT JOIN messages ON key = message "
    "WHERE sent.sender = ? AND conversation = ? AND client_msg_id = ?"
)
_SENT_PLACE = "SELECT message FROM sent WHERE sender = ? AND conversation = ? AND client_msg_id = ?"

# The row with client_msg_id '' points to the sender's last message in the conversation. It is written
# once per batch, however many messages of the sender the batch holds.
_LAST = (
    "INSERT INTO sent VALUES (?, ?, '', ?) ON CONFLICT DO UPDATE SET message = max(message, excluded.message)"
)

_MESSAGE = (
    "INSERT INTO messages (key, sender, qos, body, properties, n, last, checksum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
_PACKED = (
    "INSERT INTO messages (key, sender, qos, body, properties, n, last, checksum, codec) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

_MENTION = "INSERT OR IGNORE INTO mentions VALUES (?, ?)"
# The users are those in the body that the recalled message had. The number 0 is that of everybody.
_UNMENTION = f"""
DELETE FROM mentions WHERE message = ?1 AND user IN (
    SELECT 0 UNION ALL SELECT names.id
    FROM (SELECT CAST({BODY} AS TEXT) AS text FROM messages WHERE key = ?1)
    CROSS JOIN json_each(iif(json_valid(text), text, '{{}}'), '$.mentions') AS each
    CROSS JOIN names ON name = 'users/' || each.value || '/inbox'
)
"""
_EVERYBODY = 0


class SqliteMessageLog:
    """See `broker.ports.MessageLog`."""

    def __init__(self, database: Database, compression: Compression | None = None) -> None:
        self._database = database
        self._compression = compression
        self._bodies = StoredBodies(database.read_names)

    async def append(self, batch: Sequence[Stamped]) -> None:
        names = self._database.written_names
        await self._append(lambda connection: _append(connection, names, batch, self._compression))

    async def append_events(self, batch: Sequence[KeptEvent], kept: int) -> None:
        names = self._database.written_names
        await self._append(lambda connection: _append_events(connection, names, batch, kept))

    async def _append(self, job: Callable[[sqlite3.Connection], None]) -> None:
        try:
            await self._database.write(job)
        except StoreError as error:
            # A unique key is taken: a (log, offset), a message id, or an idempotency key.
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise DuplicateMessageError(str(error)) from error
            raise

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        return await self._database.read(lambda connection: self._heads(connection, logs))

    async def counts(self, conversations: Sequence[str]) -> dict[str, Count]:
        def job(connection: sqlite3.Connection) -> dict[str, Count]:
            find = self._database.read_names.find
            return {name: _count(connection, find(name)) for name in conversations}

        return await self._database.read(job)

    def _heads(self, connection: sqlite3.Connection, logs: Sequence[str]) -> dict[str, int]:
        heads = {}
        for log in logs:
            number = self._database.read_names.find(log)
            heads[log] = 0 if number is None else _head(connection, log, number)
        return heads

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return await self._database.read(
            lambda connection: _within(self._scan(connection, log, after, OFFSETS, limit), max_bytes)
        )

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        def job(connection: sqlite3.Connection) -> list[Entry]:
            return _within(self._scan(connection, log, 0, before, limit, backwards=True), max_bytes)

        return (await self._database.read(job))[::-1]

    def _scan(
        self,
        connection: sqlite3.Connection,
        log: str,
        after: int,
        before: int,
        limit: int,
        *,
        backwards: bool = False,
    ) -> Iterator[Entry]:
        number = self._database.read_names.find(log)
        if number is None:
            return
        base = number << OFFSET_BITS
        # Clamped: an offset beyond 32 bits would reach into the key range of another log.
        lower, upper = (base + max(0, min(offset, OFFSETS)) for offset in (after, before))
        table = table_of(log)
        owner = parse_topic(log).owner if table is ENTRIES else ""
        for row in scan(connection, table, lower, upper, limit, backwards=backwards):
            if table is EVENTS:
                yield self._bodies.event(row, base, log)
            else:
                yield self._bodies.entry(connection, row, base, owner)

    async def amendments(
        self, conversation_id: str, seq: int, after: int, limit: int, max_bytes: int
    ) -> list[Entry]:
        def job(connection: sqlite3.Connection) -> list[Entry]:
            number = self._database.read_names.find(conversation_id)
            if number is None:
                return []
            base = number << OFFSET_BITS
            rows = connection.execute(_AMENDMENTS, (base + seq, base + after, limit))
            return _within((self._bodies.entry(connection, Row(*row), base) for row in rows), max_bytes)

        return await self._database.read(job)

    async def locate(self, ids: Sequence[int]) -> dict[int, Located]:
        def job(connection: sqlite3.Connection) -> dict[int, Located]:
            # A client may send any number; SQLite takes 64 bits.
            found = {number: self._locate(connection, number) for number in ids if 0 <= number < 1 << 63}
            return {number: located for number, located in found.items() if located is not None}

        return await self._database.read(job)

    def _locate(self, connection: sqlite3.Connection, number: int) -> Located | None:
        row = first_row(connection, _LOCATE, number) or first_row(connection, _PLACE, number)
        if row is None:
            return None
        name, key, body, stored = (*row, None, None)[:4]
        return Located(name, key % OFFSETS, self._bodies.body(connection, key, body, stored))

    async def last_id(self) -> int:
        def job(connection: sqlite3.Connection) -> int:
            (last,) = connection.execute("SELECT ifnull(max(id), 0) FROM ids").fetchone()
            return int(last)

        return await self._database.read(job)

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        def job(connection: sqlite3.Connection) -> dict[DedupKey, bytes]:
            names = self._database.read_names
            found = {}
            for key in keys:
                sender = names.find(inbox_topic(key.sender))
                conversation = names.find(key.conversation_id)
                row = first_row(connection, _SENT, sender, conversation, key.client_msg_id)
                row = row or first_row(connection, _SENT_PLACE, sender, conversation, key.client_msg_id)
                if row is not None:
                    message, body, stored = (*row, None, None)[:3]
                    found[key] = self._bodies.body(connection, message, body, stored)
            return found

        return await self._database.read(job)


def _append(
    connection: sqlite3.Connection, names: Names, batch: Sequence[Stamped], compression: Compression | None
) -> None:
    intern = names.intern
    messages, ids, entries, keyed, listed, mentioned, amended = [], [], [], [], [], [], []
    last: dict[tuple[int, int], int] = {}
    for stamped in batch:
        draft = stamped.draft
        conversation = intern(draft.conversation_id)
        key = conversation << OFFSET_BITS | stamped.seq
        sender = intern(inbox_topic(draft.sender))
        count = stamped.count
        properties = to_column(draft.properties)
        messages.append(
            (
                key,
                sender,
                draft.qos,
                stamped.body,
                properties,
                count.n,
                count.last,
                checksum(key, stamped.body),
            )
        )
        if stamped.is_message:
            last[sender, conversation] = key
        if draft.content.client_msg_id is not None:
            keyed.append((sender, conversation, draft.content.client_msg_id, key))
        ids.append((stamped.id, key))
        for log, offset in zip(draft.logs, stamped.offsets, strict=True):
            entries.append((intern(log) << OFFSET_BITS | offset, key))
        if stamped.seq == 1:
            users = participants(draft.conversation_id) or ()
            listed += [(intern(inbox_topic(user)), conversation) for user in users]
        if draft.content.mentions is not None:
            mentioned += [(user, key) for user in _mentioned(names, draft.content.mentions)]
        amended += [(key, amendment, draft.content.type == "recall") for amendment in draft.amends]
    if compression is None:
        insert(connection, _MESSAGE, messages)
    else:
        insert(connection, _PACKED, [packed(row, compression) for row in messages])
    insert(connection, "INSERT INTO sent VALUES (?, ?, ?, ?)", keyed)
    insert(connection, _LAST, [(*place, key) for place, key in last.items()])
    insert(connection, "INSERT INTO ids VALUES (?, ?)", ids)
    insert(connection, "INSERT INTO entries VALUES (?, ?)", entries)
    # OR IGNORE: the row exists already if the user marked the conversation before its first message.
    insert(connection, "INSERT OR IGNORE INTO conversations (user, conversation) VALUES (?, ?)", listed)
    insert(connection, _MENTION, mentioned)
    for key, amendment, recalls in amended:
        if recalls:
            connection.execute(_UNMENTION, (key - key % OFFSETS + amendment.seq,))
        _amend(connection, key, amendment, compression)


def _mentioned(names: Names, mentions: Sequence[str]) -> list[int]:
    """The numbers of the users that a message mentions."""
    return [_EVERYBODY] if mentions == "all" else [names.intern(inbox_topic(user)) for user in mentions]


def _append_events(
    connection: sqlite3.Connection, names: Names, batch: Sequence[KeptEvent], kept: int
) -> None:
    keyed = [(names.intern(event.log) << OFFSET_BITS | event.offset, event.body) for event in batch]
    rows = [(key, body, checksum(key, body)) for key, body in keyed]
    insert(connection, "INSERT INTO events VALUES (?, ?, ?)", rows)
    last = {key >> OFFSET_BITS: key for key, *_ in rows}
    bounds = [(number << OFFSET_BITS, key - kept) for number, key in last.items()]
    connection.executemany("DELETE FROM events WHERE key > ? AND key <= ?", bounds)


def _amend(
    connection: sqlite3.Connection, key: int, amendment: Amendment, compression: Compression | None
) -> None:
    """Replace the body of the message at `amendment.seq` in the conversation of the message `key`.

    The amended message must be the older one."""
    base, seq = key - key % OFFSETS, amendment.seq
    found = 0
    if base < base + seq < key:
        body, codec = to_columns(amendment.body, compression)
        cursor = connection.execute(
            "UPDATE messages SET body = ?, checksum = ?, codec = ? WHERE key = ?",
            (body, checksum(base + seq, amendment.body), codec, base + seq),
        )
        found = cursor.rowcount
    if not found:
        raise StoreError(f"there is no message {seq} to amend")
    connection.execute("INSERT INTO amendments VALUES (?, ?)", (base + seq, key))


def _within(entries: Iterable[Entry], max_bytes: int) -> list[Entry]:
    """Entries up to `max_bytes` of bodies in all, but at least one: a reader must get ahead."""
    taken: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.body)
        if size > max_bytes and taken:
            break
        taken.append(entry)
    return taken


def _count(connection: sqlite3.Connection, number: int | None) -> Count:
    base = (number or 0) << OFFSET_BITS
    row = connection.execute(
        "SELECT n, last FROM messages WHERE key > ? AND key < ? ORDER BY key DESC LIMIT 1",
        (base, base + OFFSETS),
    ).fetchone()
    return Count() if row is None else Count(*row)


def _head(connection: sqlite3.Connection, log: str, number: int) -> int:
    base = number << OFFSET_BITS
    return last_key(connection, table_of(log), base, base + OFFSETS) - base
