"""ConversationStore on SQLite."""

import logging
import sqlite3
from collections.abc import Mapping, Sequence

from broker.domain.topics import inbox_topic
from broker.ports import ConversationState, Watermark
from plugins.persistence.sqlite.database import Database, is_corrupt, json_object
from plugins.persistence.sqlite.schema import OFFSET_BITS, OFFSETS
from plugins.persistence.sqlite.stored import StoredBodies

logger = logging.getLogger(__name__)

# CROSS JOIN fixes the order of the tables, which SQLite's planner would otherwise choose: first the few
# requested rows, then the rows they refer to. The unary + keeps SQLite from using a column's index.
_PRIVATE = """
SELECT name FROM conversations CROSS JOIN names ON id = conversation
WHERE user = ? AND +name >= 'p:' AND +name < 'p;'
ORDER BY +name
"""
_FLOORS = """
SELECT name, floor_seq FROM conversations CROSS JOIN names ON id = conversation
WHERE user = ? AND floor_seq IS NOT 0 AND +name >= 'p:' AND +name < 'p;'
"""
# A body begins with {"id":"<digits>. The id counts only if it leads back to its message.
_STATES = """
SELECT
    name, head.key, head.n, head.last, last.key,
    (SELECT id FROM ids WHERE id = CAST(substr(head.body, 8, 20) AS INTEGER) AND message = head.key),
    (SELECT id FROM ids WHERE id = CAST(substr(last.body, 8, 20) AS INTEGER) AND message = last.key),
    (SELECT n FROM messages WHERE key > (names.id << 32) AND key <= (names.id << 32) + min((1 << 32) - 1,
        max(asked.value, ifnull(sent.message % (1 << 32), 0), ifnull(read_seq, 0)))
     ORDER BY key DESC LIMIT 1),
    sent.message % (1 << 32), read_seq, delivered_seq, pinned, muted, unread, hidden_seq, changed_at,
    floor_seq
FROM json_each(?2) AS asked CROSS JOIN names ON name = asked.key
LEFT JOIN messages AS head
    ON head.key = (SELECT max(key) FROM messages WHERE key > (names.id << 32) AND key < (names.id + 1 << 32))
LEFT JOIN messages AS last ON head.last > 0 AND last.key = (names.id << 32) + head.last
LEFT JOIN sent ON sent.sender = ?1 AND sent.conversation = names.id AND sent.client_msg_id = ''
LEFT JOIN conversations ON user = ?1 AND conversations.conversation = names.id
"""
# Users are interned under the name of their inbox, users/<id>/inbox: 6 characters before the id, 6 after.
_WATERMARKS = """
SELECT substr(name, 7, length(name) - 12) AS user_id, read_seq, delivered_seq
FROM conversations CROSS JOIN names ON id = user
WHERE conversation = ? AND read_seq >= ? AND (read_seq > 0 OR delivered_seq > 0) AND user_id > ?
ORDER BY user_id LIMIT ?
"""
# Watermarks up to the floor are those of an earlier account with the same id.
_WATERMARKS_OF = """
SELECT
    asked.key, substr(whose.name, 7, length(whose.name) - 12),
    iif(read_seq > ifnull(floor_seq, 0), read_seq, 0) AS read,
    iif(delivered_seq > ifnull(floor_seq, 0), delivered_seq, 0) AS delivered
FROM json_each(?) AS asked
CROSS JOIN names ON names.name = asked.key
CROSS JOIN names AS whose ON whose.name = asked.value
CROSS JOIN conversations ON user = whose.id AND conversation = names.id
WHERE read > 0 OR delivered > 0
"""
_MENTIONED = """
(SELECT max(message) FROM mentions
 WHERE user = {user} AND message > (names.id << 32) + asked.value AND message < (names.id + 1 << 32))
"""
_MENTIONS = f"""
SELECT asked.key, max(
    ifnull({_MENTIONED.format(user="?1")}, 0), ifnull({_MENTIONED.format(user="0")}, 0)
) % (1 << 32) AS seq
FROM json_each(?2) AS asked CROSS JOIN names ON name = asked.key
WHERE seq > 0
"""
# An inbox holds all messages of its private conversations, in their order. So within a range of entries,
# a conversation's messages are all those from the lowest to the highest key. The subquery reads backwards
# from the highest and stops at the first message of another user.
_ARRIVALS = """
SELECT name, (
    SELECT key FROM messages WHERE key >= low AND key <= high AND sender <> ?3 ORDER BY key DESC LIMIT 1
) % (1 << 32)
FROM (
    SELECT min(message) AS low, max(message) AS high FROM entries
    WHERE key > ?1 AND key <= ?2 GROUP BY message >> 32
) CROSS JOIN names ON id = low >> 32
"""


class SqliteConversationStore:
    """See `broker.ports.ConversationStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bodies = StoredBodies(database.read_names)

    async def private_conversations(self, user: str) -> list[str]:
        def job(connection: sqlite3.Connection) -> list[str]:
            return [name for (name,) in connection.execute(_PRIVATE, (self._number(user),))]

        return await self._database.read(job)

    async def states(
        self, user: str, conversation_ids: Sequence[str], floors: Mapping[str, int] | None = None
    ) -> list[ConversationState]:
        asked = dict.fromkeys(conversation_ids, 0) | dict(floors or {})

        def job(connection: sqlite3.Connection) -> list[ConversationState]:
            try:
                found = self._states(connection, user, asked)
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                found = {}
                for name, floor in asked.items():
                    found |= self._states_of_one(connection, user, name, floor)
            return [found.get(wanted) or _state(wanted) for wanted in conversation_ids]

        return await self._database.read(job)

    def _states(
        self, connection: sqlite3.Connection, user: str, asked: Mapping[str, int]
    ) -> dict[str, ConversationState]:
        found = {}
        rows = connection.execute(_STATES, (self._number(user), json_object(asked)))
        for name, head, messages, last, last_key, head_id, last_id, *rest in rows:
            found[name] = _state(
                name,
                head_id or (self._bodies.id_of(connection, head) if head else 0),
                last_id or (self._bodies.id_of(connection, last_key) if last_key else 0),
                (head or 0) % OFFSETS,
                messages,
                last,
                *rest,
            )
        return found

    def _states_of_one(
        self, connection: sqlite3.Connection, user: str, name: str, floor: int
    ) -> dict[str, ConversationState]:
        """One conversation, so that the others are seen if its page is damaged."""
        try:
            return self._states(connection, user, {name: floor})
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            logger.error("the last entry of %r cannot be read: %s", name, error)
            return {}

    async def floors(self, user: str) -> dict[str, int | None]:
        def job(connection: sqlite3.Connection) -> dict[str, int | None]:
            return dict(connection.execute(_FLOORS, (self._number(user),)).fetchall())

        return await self._database.read(job)

    async def last_change(self) -> int:
        def job(connection: sqlite3.Connection) -> int:
            (last,) = connection.execute("SELECT ifnull(max(changed_at), 0) FROM conversations").fetchone()
            return int(last)

        return await self._database.read(job)

    async def watermarks(
        self, conversation_id: str, least_read: int, after: str, limit: int
    ) -> list[Watermark]:
        def job(connection: sqlite3.Connection) -> list[Watermark]:
            number = self._database.read_names.find(conversation_id)
            rows = connection.execute(_WATERMARKS, (number, least_read, after, limit))
            return [Watermark(*row) for row in rows]

        return await self._database.read(job)

    async def watermarks_of(self, users: Mapping[str, str]) -> dict[str, Watermark]:
        asked = json_object({name: inbox_topic(user) for name, user in users.items()})

        def job(connection: sqlite3.Connection) -> dict[str, Watermark]:
            return {name: Watermark(*mark) for name, *mark in connection.execute(_WATERMARKS_OF, (asked,))}

        return await self._database.read(job)

    async def mentions(self, user: str, after: Mapping[str, int]) -> dict[str, int]:
        # Clamped: a seq beyond 32 bits would reach into the key range of another conversation.
        asked = json_object({name: min(seq, OFFSETS - 1) for name, seq in after.items()})

        def job(connection: sqlite3.Connection) -> dict[str, int]:
            return dict(connection.execute(_MENTIONS, (self._number(user), asked)).fetchall())

        return await self._database.read(job)

    async def arrivals(self, user: str, after: int, upto: int) -> dict[str, int]:
        def job(connection: sqlite3.Connection) -> dict[str, int]:
            number = self._number(user)
            if number is None:
                return {}
            base = number << OFFSET_BITS
            # Clamped: an offset beyond 32 bits would reach into the key range of another inbox.
            lower, upper = (base + max(0, min(offset, OFFSETS - 1)) for offset in (after, upto))
            rows = connection.execute(_ARRIVALS, (lower, upper, number))
            return {name: seq for name, seq in rows if seq is not None}

        return await self._database.read(job)

    def _number(self, user: str) -> int | None:
        return self._database.read_names.find(inbox_topic(user))


def _state(
    conversation_id: str,
    head_id: int = 0,
    last_id: int = 0,
    head: int = 0,
    messages: int | None = None,
    last: int | None = None,
    seen: int | None = None,
    own: int | None = None,
    read: int | None = None,
    delivered: int | None = None,
    pinned: int | None = None,
    muted: int | None = None,
    unread: int | None = None,
    hidden: int | None = None,
    changed_at: int | None = None,
    floor: int | None = None,
) -> ConversationState:
    """The state of one row of `_STATES`. The outer joins give None where there is no row."""
    return ConversationState(
        conversation_id,
        head,
        own or 0,
        read or 0,
        delivered or 0,
        bool(pinned),
        bool(muted),
        bool(unread),
        hidden or 0,
        changed_at or 0,
        head_id,
        last or 0,
        last_id,
        messages or 0,
        seen or 0,
        floor or 0,
    )
