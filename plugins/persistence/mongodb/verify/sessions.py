"""Persistent sessions with their cursors and queues, and retained messages."""

from collections.abc import AsyncGenerator

import msgspec

from broker.ports import SessionState, Verified
from plugins.persistence.mongodb.operations import Document
from plugins.persistence.mongodb.places import chunks
from plugins.persistence.mongodb.retained import retained_of
from plugins.persistence.mongodb.sessions import queue_place, state_of
from plugins.persistence.mongodb.verify.walk import Walk

_UNREADABLE = (msgspec.DecodeError, KeyError, TypeError, AttributeError)


async def check_sessions(walk: Walk) -> AsyncGenerator[Verified]:
    """What is stored of each session can be read, and no cursor is beyond the end of its log."""
    async for page in walk.pages("sessions"):
        for session in page:
            where = f"session {session.get('client_id')} of {session.get('user') or '(anonymous)'}"
            try:
                state = state_of(session, [])
            except _UNREADABLE as error:
                walk.found("damaged", where, f"cannot be read: {error}")
                continue
            await _check_cursors(walk, where, state)
            await _check_queue(walk, where, session)
        yield walk.report()


async def _check_cursors(walk: Walk, where: str, state: SessionState) -> None:
    sent: dict[str, int] = {}
    for item in state.inflight:
        sent[item.log] = max(item.offset, sent.get(item.log, 0))
    heads = await walk.heads([*state.cursors, *sent])
    for what, cursors in (("its cursor in", state.cursors), ("a message in flight of", sent)):
        for log, offset in cursors.items():
            if offset > heads[log]:
                walk.found("cursor", where, f"{what} {log} is at {offset}, and the log ends at {heads[log]}")


async def _check_queue(walk: Walk, where: str, session: Document) -> None:
    which = session["_id"]
    for numbers in chunks(range(session["first"], session["next"])):
        found = await walk.database.by_ids("queued", [queue_place(which, number) for number in numbers])
        for message in found.values():
            try:
                state_of(session, [message])
            except _UNREADABLE as error:
                walk.found("damaged", where, f"a queued message cannot be read: {error}")
        walk.count(len(found))
        if len(found) < len(numbers):
            now = await walk.database.one("sessions", which, ["first"])
            lost = [
                number
                for number in numbers
                if now is not None and number >= now["first"] and queue_place(which, number) not in found
            ]
            if lost:
                walk.found("gap", where, f"{len(lost)} messages of its queue are missing")


async def check_retained(walk: Walk) -> AsyncGenerator[Verified]:
    """What is stored of each retained message can be read."""
    async for page in walk.pages("retained"):
        for document in page:
            try:
                retained_of(document)
            except _UNREADABLE as error:
                walk.found("damaged", f"retained message on {document['_id']}", f"cannot be read: {error}")
        yield walk.report()
