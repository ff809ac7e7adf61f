"""Messages and events as documents. Each body is checked when it is read, and one that is damaged is replaced
(`domain.damage`)."""

import logging
import zlib

import msgspec

from broker.domain.conversation import is_conversation, participants
from broker.domain.damage import replacement
from broker.domain.message import Amendment, Entry, Stamped
from broker.ports import KeptEvent
from plugins.persistence.compression import Compression, unpack
from plugins.persistence.mongodb.operations import Document
from plugins.persistence.mongodb.places import place, split
from plugins.persistence.properties import from_column, to_column

logger = logging.getLogger(__name__)

EVERYBODY = ""
"""In place of a user whom a message mentions."""

_QOS = frozenset((0, 1, 2))


def checksum(where: str, body: bytes) -> int:
    """The checksum that is stored with the body at a place. A document that got another key by damage does
    not pass either."""
    return zlib.crc32(body, zlib.crc32(where.encode()))


def message_document(where: str, stamped: Stamped, compression: Compression) -> Document:
    """A message."""
    draft, count = stamped.draft, stamped.count
    document = {
        "_id": where,
        "id": stamped.id,
        "sender": draft.sender,
        "qos": draft.qos,
        "n": count.n,
        "last": count.last,
        **body_fields(where, stamped.body, compression),
    }
    if draft.properties is not None:
        document["properties"] = to_column(draft.properties)
    if users := mentioned(stamped):
        document["mentions"] = users
    return document


def body_fields(where: str, body: bytes, compression: Compression) -> Document:
    """The fields of a body."""
    packed, codec = compression.pack(body)
    fields = {"body": packed, "checksum": checksum(where, body)}
    return {**fields, "codec": codec} if codec else fields


def amended_fields(where: str, amendment: Amendment, compression: Compression) -> Document:
    """The same for a body that takes the place of another."""
    return {"codec": "", **body_fields(where, amendment.body, compression)}


def event_document(event: KeptEvent, mark: int) -> Document:
    """An event. `mark`: by which its writer knows it."""
    where = place(event.log, event.offset)
    return {"_id": where, "body": event.body, "checksum": checksum(where, event.body), "mark": mark}


def mentioned(stamped: Stamped) -> list[str]:
    """The users whom a message mentions, each once."""
    mentions = stamped.draft.content.mentions
    return [EVERYBODY] if mentions == "all" else list(dict.fromkeys(mentions or ()))


# --- reading --------------------------------------------------------------------------------


def entry_of(offset: int, where: str, document: Document | None, owner: str = "") -> Entry:
    """The entry of a log for the message at a place. `document`: None if it is lost. `owner`: the user, for
    an inbox."""
    log, _ = split(where)
    if owner and owner not in (participants(log) or ()):
        where, document = "", None  # the entry points to a message of others
    body = sound_body(where, document)
    if document is not None and body is not None and document.get("qos") in _QOS:
        try:
            return Entry(offset, body, document["qos"], from_column(document.get("properties")))
        except (msgspec.DecodeError, TypeError):
            pass
    return Entry(offset, _replaced(where, document, 0))


def body_of(where: str, document: Document | None, message_id: int = 0) -> bytes:
    """The body of the message at a place. `message_id`: its id, if it is known otherwise."""
    body = sound_body(where, document)
    return _replaced(where, document, message_id) if body is None else body


def event_of(log: str, offset: int, document: Document | None) -> Entry:
    """A user's event. In place of one that is damaged, the user is told that it is missing."""
    body = sound_body(place(log, offset), document)
    if body is not None:
        return Entry(offset, body)
    _complain(log, offset)
    return Entry(offset, msgspec.json.encode({"event": "gap", "topic": log, "from": offset, "to": offset}))


def sound_body(where: str, document: Document | None) -> bytes | None:
    """The body in a document; None if it is not the one that was stored."""
    if document is None or not isinstance(stored := document.get("body"), bytes):
        return None
    try:
        body = unpack(stored, document.get("codec", ""))
    except ValueError:
        return None
    return body if checksum(where, body) == document.get("checksum") else None


def _replaced(where: str, document: Document | None, message_id: int) -> bytes:
    known = document or {}
    conversation, seq = split(where) if where else ("", 0)
    if not is_conversation(conversation):
        conversation, seq = "", 0  # not even the place of the message is known
    _complain(conversation, seq)
    damaged, n = known.get("body"), known.get("n")
    return replacement(
        message_id or _number(known.get("id")),
        conversation,
        seq,
        str(known.get("sender", "")),
        damaged if isinstance(damaged, bytes) else b"",
        n=n if isinstance(n, int) else None,
        is_message=known.get("last", seq) == seq,
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _complain(log: str, offset: int) -> None:
    logger.error(
        "entry %d of %r is damaged in the store: readers get it without its content",
        offset,
        log,
        extra={"client": log, "reason": "damaged"},
    )
