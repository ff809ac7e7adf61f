"""StateStore on SQLite: persistent sessions, retained messages, and users' watermarks and marks."""

import sqlite3
from collections.abc import Sequence
from itertools import starmap

import msgspec

from broker.domain.subscription import Subscription, by_filter
from broker.domain.topics import inbox_topic, is_wild, matches
from broker.ports import (
    Applied,
    Claimed,
    Enqueued,
    Forgotten,
    Held,
    Lost,
    Marked,
    Moved,
    PacketIds,
    QueuedMessage,
    Redelivery,
    Retained,
    Saved,
    Seen,
    SessionKey,
    SessionState,
    StateChange,
    StoredSession,
    Subscribed,
    Unseen,
)
from plugins.persistence.properties import from_column, to_column
from plugins.persistence.sqlite.database import Database, json_list
from plugins.persistence.sqlite.names import Names

_encode = msgspec.msgpack.encode
_decode_filters = msgspec.msgpack.Decoder(list[Subscription] | dict[str, int]).decode
read_inflight = msgspec.msgpack.Decoder(list[Redelivery]).decode
read_received = msgspec.msgpack.Decoder(list[int]).decode
read_queued = msgspec.msgpack.Decoder(QueuedMessage).decode
read_packet_ids = msgspec.msgpack.Decoder(PacketIds).decode
read_lost = msgspec.msgpack.Decoder(dict[str, Lost]).decode
_IDS_OF_EARLIER_VERSIONS = PacketIds(32767, 32767)
"""Earlier versions began with packet id 1 on each connection, and few connections came as far as this."""

_SESSIONS = "SELECT id, user, client_id, saved_at, filters, inflight FROM sessions WHERE "
_SESSIONS_OF_ALL = _SESSIONS + "(user, client_id) > (?, ?) ORDER BY user, client_id LIMIT ?"
_SESSIONS_OF_ONE = _SESSIONS + "user = ? AND client_id > ? ORDER BY client_id LIMIT ?"

# The messages of a queue that do not fit in so many bytes: those with more than that from them to the newest.
# The newest always stays.
_DROP_BYTES = """
DELETE FROM session_queue WHERE id IN (
    SELECT id FROM (
        SELECT id, sum(length(message)) OVER (ORDER BY id DESC) AS bytes, max(id) OVER () AS newest
        FROM session_queue WHERE session = ?
    ) WHERE bytes > ? AND id < newest
)
"""

# Watermarks never go back. A change that moves none, and clears no "unread" mark, leaves `changed_at` alone.
_SEE = """
INSERT INTO conversations (user, conversation, read_seq, delivered_seq, changed_at)
    VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    read_seq = max(read_seq, excluded.read_seq),
    delivered_seq = max(delivered_seq, excluded.delivered_seq),
    unread = unread AND excluded.read_seq = 0,
    changed_at = excluded.changed_at
WHERE excluded.read_seq > read_seq OR excluded.delivered_seq > delivered_seq
    OR (unread AND excluded.read_seq > 0)
"""
# NULL leaves a mark as it is.
_MARK = """
INSERT INTO conversations (user, conversation, pinned, muted, unread, hidden_seq, changed_at)
    VALUES (?1, ?2, ifnull(?3, 0), ifnull(?4, 0), ifnull(?5, 0), ifnull(?6, 0), ?7)
ON CONFLICT DO UPDATE SET
    pinned = ifnull(?3, pinned),
    muted = ifnull(?4, muted),
    unread = ifnull(?5, unread),
    hidden_seq = ifnull(?6, hidden_seq),
    changed_at = ?7
"""
# An id passes to a new account: these statements, in this order, each with the user. Group rows stay where
# the earlier account has sent something, with a floor that tells its messages from those of the new one.
# Private rows stay, so that the conversations stay listed, with everything read up to the head and hidden:
# it was said to the earlier account. Its idempotency keys and its last messages go.
_UNSEE = (
    """
DELETE FROM conversations WHERE user = ? AND ifnull(floor_seq, 0) = 0
    AND EXISTS (SELECT 1 FROM names WHERE id = conversation AND name >= 'g:' AND name < 'g;')
""",
    """
INSERT OR IGNORE INTO conversations (user, conversation)
SELECT DISTINCT sender, conversation FROM sent CROSS JOIN names ON id = conversation
WHERE sender = ? AND name >= 'g:' AND name < 'g;'
""",
    """
UPDATE conversations SET
    (floor_seq, read_seq, delivered_seq, pinned, muted, unread, hidden_seq, changed_at) =
    (SELECT head, head * is_private, head * is_private, 0, 0, 0, 0, 0 FROM (
        SELECT
            ifnull(max(key) % (1 << 32), 0) AS head,
            (SELECT name >= 'p:' AND name < 'p;' FROM names WHERE id = conversation) AS is_private
        FROM messages WHERE key > (conversation << 32) AND key < (conversation + 1 << 32)
    ))
WHERE user = ?
""",
    "DELETE FROM sent WHERE sender = ?",
    "DELETE FROM mentions WHERE user = ?",
)


class SqliteStateStore:
    """See `broker.ports.StateStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, changes: Sequence[StateChange]) -> Applied:
        names = self._database.written_names

        def job(connection: sqlite3.Connection) -> Applied:
            dropped, stale = 0, []
            for change in changes:
                if isinstance(change, Saved | Moved | Enqueued) and _is_stale(connection, change):
                    stale.append(change)
                else:
                    dropped += _apply(connection, names, change)
            return Applied(dropped, stale)

        return await self._database.write(job)

    async def load(self, key: SessionKey) -> SessionState | None:
        # On the writer thread, so it runs after the saves submitted before it.
        return await self._database.write(lambda connection: _load(connection, key))

    async def claim(self, key: SessionKey, at: int) -> Claimed:
        def job(connection: sqlite3.Connection) -> Claimed:
            state = _load(connection, key)
            if state is None:
                _save(connection, Saved(key, SessionState({}, {}, [], [], []), at))
            # A new session begins with the time, so that no epoch of one that was deleted comes back.
            (epoch,) = connection.execute(
                "UPDATE sessions SET epoch = max(epoch + 1, iif(?, ?, 0)), saved_at = ? "
                "WHERE user = ? AND client_id = ? RETURNING epoch",
                (state is None, at, at, key.user, key.client_id),
            ).fetchone()
            return Claimed(epoch, state)

        return await self._database.write(job)

    async def subscriptions(self, user: str | None = None) -> list[Subscribed]:
        def job(connection: sqlite3.Connection) -> list[Subscribed]:
            rows = connection.execute(
                "SELECT user, client_id, filters, epoch FROM sessions WHERE ?1 IS NULL OR user = ?1", (user,)
            )
            return [
                Subscribed(SessionKey(name, client_id), read_filters(filters), epoch)
                for name, client_id, filters, epoch in rows
            ]

        return await self._database.read(job)

    async def sessions(self, user: str | None, after: SessionKey, limit: int) -> list[StoredSession]:
        def job(connection: sqlite3.Connection) -> list[StoredSession]:
            of_whom = after.user if user is None else user
            # A client id of another user says nothing about this one's.
            beyond = after.client_id if after.user == of_whom else ""
            query = _SESSIONS_OF_ALL if user is None else _SESSIONS_OF_ONE
            rows = connection.execute(query, (of_whom, beyond, limit)).fetchall()
            return [_listed(connection, *row) for row in rows]

        return await self._database.read(job)

    async def client_ids(self, user: str, limit: int) -> list[str]:
        def job(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute("SELECT client_id FROM sessions WHERE user = ? LIMIT ?", (user, limit))
            return [client_id for (client_id,) in rows]

        return await self._database.read(job)

    async def expiring(self, before: int, limit: int) -> list[SessionKey]:
        def job(connection: sqlite3.Connection) -> list[SessionKey]:
            rows = connection.execute(
                "SELECT user, client_id FROM sessions WHERE saved_at < ? LIMIT ?", (before, limit)
            )
            return [SessionKey(*row) for row in rows]

        return await self._database.read(job)

    async def expire(self, before: int, keep: Sequence[SessionKey], now: int) -> int:
        def job(connection: sqlite3.Connection) -> int:
            connection.executemany(
                "UPDATE sessions SET saved_at = ? WHERE user = ? AND client_id = ?",
                [(now, key.user, key.client_id) for key in keep],
            )
            return connection.execute("DELETE FROM sessions WHERE saved_at < ?", (before,)).rowcount

        return await self._database.write(job)

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        def job(connection: sqlite3.Connection) -> list[Retained]:
            # The levels before the first wildcard bound the scan: `base` itself and the topics below it
            # ("0" is the character after "/").
            base = topic_filter if not is_wild(topic_filter) else _literal_levels(topic_filter)
            rows = connection.execute(
                "SELECT topic, payload, qos, live, properties, owner FROM retained WHERE topic > ?1 "
                "AND (?2 IS NULL OR topic = ?2 OR (topic >= ?2 || '/' AND topic < ?2 || '0')) ORDER BY topic",
                (after, base),
            )
            found = []
            for row in rows:
                if matches(topic_filter, row[0]):
                    found.append(_retained(*row))
                    if len(found) == limit:
                        break
            return found

        return await self._database.read(job)

    async def retained_on(self, topics: Sequence[str]) -> dict[str, Retained]:
        def job(connection: sqlite3.Connection) -> dict[str, Retained]:
            rows = connection.execute(
                "SELECT topic, payload, qos, live, properties, owner FROM json_each(?) CROSS JOIN retained "
                "ON topic = value",
                (json_list(topics),),
            )
            return {row[0]: _retained(*row) for row in rows}

        return await self._database.read(job)

    async def held(self) -> dict[str, Held]:
        def job(connection: sqlite3.Connection) -> dict[str, Held]:
            # "0" is the character after "/". The length of a BLOB is in its row's header: payloads are not
            # read.
            rows = connection.execute(
                "SELECT topic, owner, length(CAST(topic AS BLOB)) + length(payload) FROM retained "
                "WHERE topic < 'users/' OR topic >= 'users0'"
            )
            return {topic: Held(owner, size) for topic, owner, size in rows}

        return await self._database.read(job)

    async def live_retained(self) -> list[str]:
        def job(connection: sqlite3.Connection) -> list[str]:
            return [row[0] for row in connection.execute("SELECT topic FROM retained WHERE live")]

        return await self._database.read(job)


def _retained(
    topic: str, payload: bytes, qos: int, live: int, properties: bytes | None, owner: str
) -> Retained:
    return Retained(topic, payload, qos, True, from_column(properties), bool(live), owner)


def _literal_levels(topic_filter: str) -> str | None:
    """The levels before the first wildcard, or None if the filter begins with one."""
    levels = []
    for level in topic_filter.split("/"):
        if level in ("+", "#"):
            break
        levels.append(level)
    return "/".join(levels) if levels else None


def _is_stale(connection: sqlite3.Connection, change: Saved | Moved | Enqueued) -> bool:
    """Whether the session has been claimed since, or deleted."""
    if change.epoch is None:
        return False
    row = connection.execute(
        "SELECT epoch FROM sessions WHERE user = ? AND client_id = ?", (change.key.user, change.key.client_id)
    ).fetchone()
    return row is None or row[0] != change.epoch


def _apply(connection: sqlite3.Connection, names: Names, change: StateChange) -> int:
    """Make one change; returns how many queued messages it dropped."""
    match change:
        case Saved():
            _save(connection, change)
        case Moved(key, cursors, packet_ids):
            if packet_ids is not None:
                connection.execute(
                    "UPDATE sessions SET packet_ids = ? WHERE user = ? AND client_id = ?",
                    (_encode(packet_ids), key.user, key.client_id),
                )
            connection.executemany(
                "INSERT INTO cursors SELECT id, ?3, ?4 FROM sessions WHERE user = ?1 AND client_id = ?2 "
                "ON CONFLICT DO UPDATE SET offset = excluded.offset",
                [(key.user, key.client_id, log, offset) for log, offset in cursors.items()],
            )
        case Enqueued():
            return _enqueue(connection, change)
        case Forgotten(user, None):
            connection.execute("DELETE FROM sessions WHERE user = ?", (user,))
        case Forgotten(user, client_id):
            connection.execute("DELETE FROM sessions WHERE user = ? AND client_id = ?", (user, client_id))
        case Retained(topic, payload, qos):
            if payload:
                row = (topic, payload, qos, change.live, to_column(change.properties), change.owner)
                connection.execute("INSERT OR REPLACE INTO retained VALUES (?, ?, ?, ?, ?, ?)", row)
            else:
                connection.execute("DELETE FROM retained WHERE topic = ?", (topic,))
        case _:
            _observe(connection, names, change)
    return 0


def _observe(connection: sqlite3.Connection, names: Names, change: Seen | Marked | Unseen) -> None:
    """Apply a change of a user's watermarks or marks in a conversation."""
    match change:
        case Seen(user, conversation_id, at, read, delivered):
            if read > 0 or delivered > 0:
                place = names.intern(inbox_topic(user)), names.intern(conversation_id)
                connection.execute(_SEE, (*place, max(0, read), max(0, delivered), at))
        case Marked(user, conversation_id, at, pinned, muted, unread, hidden):
            place = names.intern(inbox_topic(user)), names.intern(conversation_id)
            connection.execute(_MARK, (*place, pinned, muted, unread, hidden, at))
        case Unseen(user):
            if (number := names.find(inbox_topic(user))) is not None:
                for statement in _UNSEE:
                    connection.execute(statement, (number,))


def _save(connection: sqlite3.Connection, change: Saved) -> None:
    key, state = change.key, change.state
    (number,) = connection.execute(
        "INSERT INTO sessions (user, client_id, saved_at, filters, inflight, received, packet_ids, lost) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user, client_id) DO UPDATE SET "
        "saved_at = excluded.saved_at, filters = excluded.filters, inflight = excluded.inflight, "
        "received = excluded.received, packet_ids = excluded.packet_ids, lost = excluded.lost RETURNING id",
        (
            key.user,
            key.client_id,
            change.at,
            _encode(list(state.filters.values())),
            _encode(state.inflight),
            _encode(state.received),
            _encode(state.packet_ids),
            None if state.lost is None else _encode(state.lost),
        ),
    ).fetchone()
    connection.execute("DELETE FROM cursors WHERE session = ?", (number,))
    connection.executemany(
        "INSERT INTO cursors VALUES (?, ?, ?)",
        [(number, log, offset) for log, offset in state.cursors.items()],
    )
    connection.execute("DELETE FROM session_queue WHERE session = ?", (number,))
    connection.executemany(
        "INSERT INTO session_queue (session, message) VALUES (?, ?)",
        [(number, _encode(message)) for message in state.queue],
    )


def _enqueue(connection: sqlite3.Connection, change: Enqueued) -> int:
    row = connection.execute(
        "SELECT id FROM sessions WHERE user = ? AND client_id = ?", (change.key.user, change.key.client_id)
    ).fetchone()
    if row is None:
        return 0
    (number,) = row
    connection.execute(
        "INSERT INTO session_queue (session, message) VALUES (?, ?)", (number, _encode(change.message))
    )
    dropped = connection.execute(
        "DELETE FROM session_queue WHERE id IN "
        "(SELECT id FROM session_queue WHERE session = ? ORDER BY id DESC LIMIT -1 OFFSET ?)",
        (number, change.limit),
    ).rowcount
    # Adding up the sizes takes longer the longer the queue is. Messages of at most an average size cannot
    # exceed the bytes by themselves.
    if len(change.message.payload) * change.limit > change.max_bytes:
        dropped += connection.execute(_DROP_BYTES, (number, change.max_bytes)).rowcount
    return dropped


def _listed(
    connection: sqlite3.Connection,
    number: int,
    user: str,
    client_id: str,
    saved_at: int,
    filters: bytes,
    inflight: bytes,
) -> StoredSession:
    cursors = connection.execute("SELECT log, offset FROM cursors WHERE session = ?", (number,)).fetchall()
    (queued,) = connection.execute(
        "SELECT count(*) FROM session_queue WHERE session = ?", (number,)
    ).fetchone()
    sent = sum(1 for each in read_inflight(inflight) if each.packet_id and not each.released)
    key = SessionKey(user, client_id)
    return StoredSession(key, saved_at, read_filters(filters), dict(cursors), queued + sent)


def read_filters(column: bytes) -> dict[str, Subscription]:
    """Subscriptions by filter. Earlier versions stored a map of filter -> QoS, without options."""
    kept = _decode_filters(column)
    return by_filter(starmap(Subscription, kept.items()) if isinstance(kept, dict) else kept)


def _load(connection: sqlite3.Connection, key: SessionKey) -> SessionState | None:
    row = connection.execute(
        "SELECT id, filters, inflight, received, packet_ids, lost FROM sessions "
        "WHERE user = ? AND client_id = ?",
        (key.user, key.client_id),
    ).fetchone()
    if row is None:
        return None
    number, filters, inflight, received, packet_ids, lost = row
    cursors = connection.execute("SELECT log, offset FROM cursors WHERE session = ?", (number,))
    queue = connection.execute("SELECT message FROM session_queue WHERE session = ? ORDER BY id", (number,))
    return SessionState(
        read_filters(filters),
        dict(cursors.fetchall()),
        read_inflight(inflight),
        read_received(received),
        [read_queued(message) for (message,) in queue],
        _IDS_OF_EARLIER_VERSIONS if packet_ids is None else read_packet_ids(packet_ids),
        None if lost is None else read_lost(lost),
    )
