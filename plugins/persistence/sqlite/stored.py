"""Bodies as they are read: each is checked, and one that is damaged is replaced (`domain.damage`)."""

import logging
import sqlite3
import zlib
from typing import NamedTuple

import msgspec

from broker.domain.conversation import is_conversation, participants
from broker.domain.damage import is_sound, replacement
from broker.domain.message import Entry
from plugins.persistence.properties import from_column
from plugins.persistence.sqlite.database import first_row
from plugins.persistence.sqlite.names import Names

logger = logging.getLogger(__name__)

_SEQ_BITS = 32
_SEQ = (1 << _SEQ_BITS) - 1
_MIX = 0x9E3779B97F4A7C15  # odd, with ones and zeros in turns: the product depends on all bits of a key
_CACHED = 10_000
_QOS = frozenset((0, 1, 2))
_USER = slice(len("users/"), -len("/inbox"))
"""Users are interned under the names of their inboxes."""

_OF_DAMAGED = "SELECT sender, n, last FROM messages WHERE key = ?"
_NAME = "SELECT name FROM names WHERE id = ?"
_IS_ID_OF = "SELECT 1 FROM ids WHERE id = ? AND message = ?"
_ID_OF = "SELECT id FROM ids WHERE message = ?"


def checksum(key: int, body: bytes) -> int:
    """The checksum that is stored with the body of the row with this key. A row that got another key by
    damage does not pass either."""
    return zlib.crc32(body, key * _MIX >> _SEQ_BITS & _SEQ)


class Row(NamedTuple):
    """An entry of a log as it is stored. `key` is its key in the log, `message` that of the message, 0 if it
    is lost."""

    key: int
    message: int
    body: bytes | None
    qos: int
    properties: bytes | None
    checksum: int | None
    """None for a body of a version that stored none."""


class StoredBodies:
    """Checks what one connection reads. `names` are those of this connection."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._ids: dict[int, int] = {}
        self._private: dict[int, tuple[str, ...]] = {}

    def entry(self, connection: sqlite3.Connection, row: Row, base: int, owner: str = "") -> Entry:
        """A row of a log whose keys begin after `base`. `owner`: the user, for an inbox."""
        offset = row.key - base
        # In a damaged row a value may even be of another type.
        message = row.message if isinstance(row.message, int) else 0
        if row.qos in _QOS and is_whole(message, row.body, row.checksum):
            try:
                entry = Entry(offset, row.body or b"", row.qos, from_column(row.properties))
            except (msgspec.DecodeError, TypeError):
                pass
            else:
                if not owner or owner in self._users(connection, message):
                    return entry
                message = 0  # the entry points to a message of others
        return Entry(offset, self._replacement(connection, message, row.body))

    def _users(self, connection: sqlite3.Connection, message: int) -> tuple[str, ...]:
        """The users of the private conversation of a message."""
        number = message >> _SEQ_BITS
        users = self._private.get(number)
        if users is None:
            found = first_row(connection, _NAME, number)
            users = participants(str(found[0])) or () if found else ()
            if len(self._private) >= _CACHED:
                self._private.clear()
            self._private[number] = users
        return users

    def event(self, row: Row, base: int, log: str) -> Entry:
        """A row of a user's events. In place of one that is damaged, the user is told that it is missing."""
        offset = row.key - base
        if row.body is not None and (row.checksum is None or is_whole(row.key, row.body, row.checksum)):
            return Entry(offset, row.body)
        _complain(log, offset)
        gap = {"event": "gap", "topic": log, "from": offset, "to": offset}
        return Entry(offset, msgspec.json.encode(gap))

    def body(
        self, connection: sqlite3.Connection, message: int, body: bytes | None, stored_checksum: int | None
    ) -> bytes:
        """The body of the message with this key."""
        if body is not None and is_whole(message, body, stored_checksum):
            return body
        return self._replacement(connection, message, body)

    def _replacement(self, connection: sqlite3.Connection, message: int, body: object) -> bytes:
        damaged = body if isinstance(body, bytes) else b""
        conversation = first_row(connection, _NAME, message >> _SEQ_BITS)
        name, seq = str(conversation[0]) if conversation else "", message & _SEQ
        if not is_conversation(name):
            name, seq = "", 0  # not even the place of the message is known
        _complain(name, seq)
        sender, n, last = first_row(connection, _OF_DAMAGED, message) or (0, None, seq)
        user = first_row(connection, _NAME, sender) if isinstance(sender, int) else None
        return replacement(
            self.id_of(connection, message, damaged),
            name,
            seq,
            str(user[0])[_USER] if user else "",
            damaged,
            n=n if isinstance(n, int) else None,
            is_message=last == seq,
        )

    def id_of(self, connection: sqlite3.Connection, message: int, damaged: bytes = b"") -> int:
        """The id of the message with this key; 0 if it is lost."""
        digits = damaged[7:27].partition(b'"')[0]  # {"id":"<digits>"
        if digits.isdigit() and first_row(connection, _IS_ID_OF, int(digits) % (1 << 63), message):
            return int(digits)
        # No index leads from a message to its id. This is for the few bodies whose first bytes are damaged.
        known = self._ids.get(message)
        if known is None:
            found = first_row(connection, _ID_OF, message)
            if len(self._ids) >= _CACHED:
                self._ids.clear()
            known = self._ids[message] = found[0] if found else 0
        return known


def is_whole(key: int, body: object, stored_checksum: object) -> bool:
    """Whether the body in the row of `messages` with this key is what was stored."""
    if not isinstance(body, bytes):
        return False
    if stored_checksum is None:
        return is_sound(body)
    return checksum(key, body) == stored_checksum


def _complain(log: str, offset: int) -> None:
    logger.error(
        "entry %d of %r is damaged in the store: readers get it without its content",
        offset,
        log,
        extra={"client": log, "reason": "damaged"},
    )
