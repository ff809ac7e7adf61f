"""The tables that refer to messages."""

from collections.abc import Iterator

from broker.ports import Verified
from plugins.persistence.sqlite.schema import OFFSET_BITS, OFFSETS
from plugins.persistence.sqlite.verify.walk import Walk

_NEXT = "SELECT key >> 32 FROM {table} WHERE key >= ? ORDER BY key LIMIT 1"
_IDS = "SELECT id, messages.key IS NULL FROM ids LEFT JOIN messages ON key = message WHERE id > ? ORDER BY id"
_SENT = (
    "SELECT sent.sender, conversation, client_msg_id, message, messages.sender FROM sent "
    "LEFT JOIN messages ON key = message "
    "WHERE (sent.sender, conversation, client_msg_id) > (?, ?, ?) ORDER BY 1, 2, 3"
)
_AMENDMENTS = (
    "SELECT target, message, one.key IS NULL, other.key IS NULL FROM amendments "
    "LEFT JOIN messages AS one ON one.key = target LEFT JOIN messages AS other ON other.key = message "
    "WHERE (target, message) > (?, ?) ORDER BY 1, 2"
)
_MENTIONS = (
    "SELECT user, message, key IS NULL FROM mentions LEFT JOIN messages ON key = message "
    "WHERE (user, message) > (?, ?) ORDER BY 1, 2"
)
_WATERMARKS = (
    "SELECT user, conversation, read_seq, delivered_seq, hidden_seq FROM conversations "
    "WHERE (user, conversation) > (?, ?) ORDER BY 1, 2"
)


def check_keys(walk: Walk) -> Iterator[Verified]:
    """Each log has a name, without which nobody can read it."""
    for table in ("messages", "entries", "events"):
        number: int | None = -1
        while number is not None:
            number = walk.value(_NEXT.format(table=table), number + 1 << OFFSET_BITS)
            if number is not None and walk.name(number) is None:
                walk.found("dangling", f"table {table}", f"log {number} has no name")
            walk.count(1)
            yield from walk.report(0, 1)


def check_ids(walk: Walk) -> Iterator[Verified]:
    """Each message id leads to a message."""
    first, last = walk.rows("SELECT ifnull(min(id), 0), ifnull(max(id), 0) FROM ids")[0]
    after = -1
    while rows := walk.page(_IDS, after):
        for after, is_dangling in rows:
            if is_dangling:
                walk.found("dangling", f"id {after}", "there is no such message")
        yield from walk.report(after - first, last - first + 1)


def check_sent(walk: Walk) -> Iterator[Verified]:
    """Each idempotency key, and each sender's last message, leads to a message of that sender."""
    total = walk.value("SELECT max(id) FROM names") or 1
    after: tuple[int, int, str] = (-1, -1, "")
    while rows := walk.page(_SENT, *after):
        for sender, conversation, client_msg_id, message, found in rows:
            after = (sender, conversation, client_msg_id)
            if found is None:
                walk.found("dangling", _sent(walk, *after), f"there is no {_shown(walk, message)}")
            elif found != sender or message >> OFFSET_BITS != conversation:
                detail = f"{_shown(walk, message)} is from {walk.name(found)}"
                walk.found("damaged", _sent(walk, *after), detail)
        yield from walk.report(after[0], total)


def _sent(walk: Walk, sender: int, conversation: int, client_msg_id: str) -> str:
    what = f"client_msg_id {client_msg_id!r}" if client_msg_id else "last message"
    return f"{what} of {walk.name(sender)} in {walk.name(conversation)}"


def _shown(walk: Walk, message: int) -> str:
    number = message >> OFFSET_BITS
    return f"{walk.name(number) or f'log {number}'} {message % OFFSETS}"


def check_amendments(walk: Walk) -> Iterator[Verified]:
    """What is noted down of edits and recalls leads to messages."""
    after = (-1, -1)
    while rows := walk.page(_AMENDMENTS, *after):
        for target, message, no_target, no_message in rows:
            after = (target, message)
            for key, is_dangling in ((target, no_target), (message, no_message)):
                if is_dangling:
                    where = f"amendment of {_shown(walk, target)}"
                    walk.found("dangling", where, f"there is no {_shown(walk, key)}")
        yield from walk.report(0, 1)


def check_mentions(walk: Walk) -> Iterator[Verified]:
    """Each mention is one of a user with a name, or of all (0), in a message."""
    total = walk.value("SELECT max(id) FROM names") or 1
    after = (-1, -1)
    while rows := walk.page(_MENTIONS, *after):
        for user, message, is_dangling in rows:
            after = (user, message)
            name = walk.name(user) if user else "all"
            where = f"mention of {name or f'user {user}'} in {_shown(walk, message)}"
            if name is None:
                walk.found("dangling", where, "has no name")
            if is_dangling:
                walk.found("dangling", where, "there is no such message")
        yield from walk.report(after[0], total)


def check_watermarks(walk: Walk) -> Iterator[Verified]:
    """No watermark is beyond the end of its conversation."""
    total = walk.value("SELECT max(id) FROM names") or 1
    after = (-1, -1)
    while rows := walk.page(_WATERMARKS, *after):
        for user, conversation, read, delivered, hidden in rows:
            after = (user, conversation)
            name = walk.name(conversation)
            where = f"{walk.name(user) or f'user {user}'} in {name or f'log {conversation}'}"
            if name is None or walk.name(user) is None:
                walk.found("dangling", where, "has no name")
            head = walk.head("messages", conversation)
            for what, seq in (("read", read), ("delivered", delivered), ("hidden", hidden)):
                if seq > head:
                    walk.found("cursor", where, f"{what} up to {seq}, and the conversation ends at {head}")
        yield from walk.report(after[0], total)
