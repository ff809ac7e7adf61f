"""Numbers the entries of a store that was written before entries carried `n`.

Takes a bounded number of entries at a time, each time in a transaction of its own, so that neither the
memory nor the write-ahead log grows with the store. If the node is killed in between, it starts over: an
entry that is numbered already stays as it is.
"""

import logging
import sqlite3
from collections.abc import Iterator, Sequence

import msgspec

from broker.domain.message import SERVER_TYPES, Count

logger = logging.getLogger(__name__)

# As the keys were when this step was released: it does not follow later changes of the schema.
_OFFSET_BITS = 32
_SEQ = (1 << _OFFSET_BITS) - 1

_ROWS = 2000
_BYTES = 4 * 1024 * 1024

_SELECT = "SELECT key, sender, body FROM messages WHERE key > ? ORDER BY key"
_UPDATE = "UPDATE messages SET n = ?, last = ?, body = ? WHERE key = ?"
# The row with client_msg_id '' points to a sender's last message. In a store without `n` it may point to an
# edit, so these rows are written anew.
_FORGET_LAST = "DELETE FROM sent WHERE client_msg_id = ''"
_LAST = "INSERT INTO sent VALUES (?, ?, '', ?) ON CONFLICT DO UPDATE SET message = excluded.message"

_Row = tuple[int, int, bytes]


class _Numbered(msgspec.Struct, gc=False):
    type: str = ""
    n: int | None = None


_decode = msgspec.json.Decoder(_Numbered).decode


def number_entries(connection: sqlite3.Connection) -> None:
    """Give every entry its `n`, in its row and in its body, and every sender their last message."""
    _write(connection, [(_FORGET_LAST, [()])])
    conversation, count, numbered = 0, Count(), 0
    for rows in _chunks(connection):
        updates = []
        last: dict[tuple[int, int], int] = {}
        for key, sender, body in rows:
            if key >> _OFFSET_BITS != conversation:
                conversation, count = key >> _OFFSET_BITS, Count()
            entry = _read(body)
            if entry.type not in SERVER_TYPES:
                count = Count(count.n + 1, key & _SEQ)
                last[sender, conversation] = key
            numbered_body = body if entry.n is not None else b'%b,"n":%d}' % (body[:-1], count.n)
            updates.append((count.n, count.last, numbered_body, key))
        _write(connection, [(_UPDATE, updates), (_LAST, [(*place, key) for place, key in last.items()])])
        numbered += len(rows)
    if numbered:
        logger.info("numbered the %d entries of an older store", numbered)


def _chunks(connection: sqlite3.Connection) -> Iterator[list[_Row]]:
    """All messages by conversation and seq, a bounded number of bytes at a time."""
    after = 0
    while True:
        rows: list[_Row] = []
        size = 0
        cursor = connection.execute(_SELECT, (after,))
        for row in cursor:
            rows.append(row)
            size += len(row[2])
            if len(rows) >= _ROWS or size >= _BYTES:
                break
        cursor.close()  # before its rows are changed
        if not rows:
            return
        yield rows
        after = rows[-1][0]


def _read(body: bytes) -> _Numbered:
    """The type and number in a body. One that is damaged counts as a message, and stays as it is."""
    try:
        return _decode(body)
    except msgspec.DecodeError:
        return _Numbered(n=0)


def _write(
    connection: sqlite3.Connection, changes: Sequence[tuple[str, Sequence[tuple[object, ...]]]]
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement, rows in changes:
            connection.executemany(statement, rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
