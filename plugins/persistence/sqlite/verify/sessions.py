"""Persistent sessions with their cursors, and retained messages."""

from collections.abc import Iterator

import msgspec

from broker.ports import Verified
from plugins.persistence.properties import from_column
from plugins.persistence.sqlite import state_store
from plugins.persistence.sqlite.verify.walk import Walk, table_of

_COLUMNS = "filters, inflight, received, packet_ids"
_SESSIONS = f"SELECT id, user, client_id, {_COLUMNS} FROM sessions WHERE id > ? ORDER BY id"
_CURSORS = "SELECT log, offset FROM cursors WHERE session = ?"
_QUEUE = "SELECT id, message FROM session_queue WHERE session = ? AND id > ? ORDER BY id"
_RETAINED = "SELECT topic, properties FROM retained WHERE topic > ? ORDER BY topic"


def check_sessions(walk: Walk) -> Iterator[Verified]:
    """What is stored of each session can be read, and no cursor is beyond the end of its log."""
    total = walk.value("SELECT max(id) FROM sessions") or 1
    number = 0
    while rows := walk.page(_SESSIONS, number):
        for number, user, client_id, *columns in rows:
            where = f"session {client_id} of {user or '(anonymous)'}"
            _check_cursors(walk, where, dict(walk.rows(_CURSORS, number)), "its cursor in")
            _check_columns(walk, where, columns)
            yield from _check_queue(walk, where, number, total)
        yield from walk.report(number, total)


def _check_columns(walk: Walk, where: str, columns: list[bytes | None]) -> None:
    filters, inflight, received, packet_ids = columns
    try:
        state_store.read_filters(filters or b"")
        sent = state_store.read_inflight(inflight or b"")
        state_store.read_received(received or b"")
        if packet_ids is not None:
            state_store.read_packet_ids(packet_ids)
    except msgspec.DecodeError as error:
        walk.found("damaged", where, f"cannot be read: {error}")
        return
    furthest: dict[str, int] = {}
    for item in sent:
        furthest[item.log] = max(item.offset, furthest.get(item.log, 0))
    _check_cursors(walk, where, furthest, "a message in flight of")


def _check_cursors(walk: Walk, where: str, cursors: dict[str, int], what: str) -> None:
    for log, offset in cursors.items():
        number = walk.number(log)
        head = 0 if number is None else walk.head(table_of(log), number)
        walk.count(1)
        if offset > head:
            walk.found("cursor", where, f"{what} {log} is at {offset}, and the log ends at {head}")


def _check_queue(walk: Walk, where: str, number: int, total: int) -> Iterator[Verified]:
    after = 0
    while rows := walk.page(_QUEUE, number, after):
        after = rows[-1][0]
        for _, message in rows:
            try:
                state_store.read_queued(message)
            except msgspec.DecodeError as error:
                walk.found("damaged", where, f"a queued message cannot be read: {error}")
        yield from walk.report(number, total)


def check_retained(walk: Walk) -> Iterator[Verified]:
    """What is stored of each retained message can be read."""
    topic = ""
    while rows := walk.page(_RETAINED, topic):
        for topic, properties in rows:
            try:
                from_column(properties)
            except msgspec.DecodeError as error:
                walk.found("damaged", f"retained message on {topic}", f"cannot be read: {error}")
        yield from walk.report(0, 1)
