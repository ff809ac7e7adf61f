"""The logs: offsets without gaps, and the entries in them."""

from collections.abc import Iterator

import msgspec

from broker.domain.conversation import participants
from broker.domain.message import Body, Count, read_body
from broker.domain.topics import inbox_topic
from broker.ports import Verified
from plugins.persistence.sqlite.bodies import BODY
from plugins.persistence.sqlite.schema import OFFSET_BITS, OFFSETS
from plugins.persistence.sqlite.stored import checksum
from plugins.persistence.sqlite.verify.walk import Walk, table_of

_LOGS = "SELECT id, name FROM names WHERE id > ? ORDER BY id LIMIT 200"
_MESSAGES = (
    f"SELECT key, sender, {BODY}, n, last, checksum FROM messages WHERE key > ? AND key < ? ORDER BY key"
)
_ENTRIES = (
    "SELECT entries.key, message, messages.key IS NULL FROM entries LEFT JOIN messages "
    "ON messages.key = message WHERE entries.key > ? AND entries.key < ? ORDER BY entries.key"
)
_EVENTS = "SELECT key, body, checksum FROM events WHERE key > ? AND key < ? ORDER BY key"
_IDS = "SELECT value, message FROM json_each(?) LEFT JOIN ids ON ids.id = value"
_KEYED = "SELECT message FROM sent WHERE sender = ? AND conversation = ? AND client_msg_id = ?"
_PRIVATE = (
    "SELECT conversation FROM conversations CROSS JOIN names ON id = conversation "
    "WHERE user = ? AND +name >= 'p:' AND +name < 'p;'"
)
_LISTED = "SELECT 1 FROM conversations WHERE user = ? AND conversation = ?"
_OTHER_BODY = "its body is not the one that was stored"
_MOST_CONVERSATIONS = 100_000
"""Conversations of one inbox that are followed at a time: bounds the memory."""


def check_logs(walk: Walk) -> Iterator[Verified]:
    """All logs, in the order of their numbers."""
    total = walk.value("SELECT max(id) FROM names") or 0
    number = 0
    while logs := walk.rows(_LOGS, number):
        for number, name in logs:
            match table_of(name):
                case "messages":
                    reports = _Conversation(walk, number, name).check(total)
                case "entries":
                    reports = _Inbox(walk, number, name).check(total)
                case _:
                    reports = _check_events(walk, number, name, total)
            yield from reports
            walk.count(1)
            yield from walk.report(number, total)


def _skipped(walk: Walk, log: str, expected: int, found: int) -> bool:
    """Whether offsets are missing before the one that was found."""
    if found == expected:
        return False
    missing = f"{expected}" if found == expected + 1 else f"{expected} to {found - 1}"
    walk.found("gap", log, f"{missing} missing")
    return True


class _Conversation:
    """A conversation: its messages, and what refers to each of them."""

    def __init__(self, walk: Walk, number: int, name: str) -> None:
        self._walk = walk
        self._number = number
        self._name = name
        self._seq = 0
        self._count: Count | None = Count()
        """Of the messages up to `_seq`; None where entries are missing."""

    def check(self, total: int) -> Iterator[Verified]:
        walk = self._walk
        base = self._number << OFFSET_BITS
        while rows := walk.page(_MESSAGES, base + self._seq, base + OFFSETS):
            ids: dict[int, int] = {}
            for key, sender, body, n, last, stored in rows:
                if _skipped(walk, self._name, self._seq + 1, key - base):
                    self._count = None
                self._seq = key - base
                if (read := self._read(key, body, stored)) is not None:
                    self._compare(read, sender, n, last)
                    ids[int(read.id)] = key
                self._count = Count(n, last)
            self._check_ids(ids)
            yield from walk.report(self._number, total)
        for user in dict.fromkeys(participants(self._name) or ()) if self._seq else ():
            self._check_listed(user)

    def _found_damage(self, detail: str) -> None:
        self._walk.found("damaged", f"{self._name} {self._seq}", detail)

    def _read(self, key: int, body: bytes | None, stored: int | None) -> Body | None:
        if body is None or (stored is not None and checksum(key, body) != stored):
            self._walk.found("checksum", f"{self._name} {self._seq}", _OTHER_BODY)
            return None
        try:
            read = read_body(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._found_damage(f"its body cannot be read: {error}")
            return None
        if not (read.id.isascii() and read.id.isdigit() and len(read.id) < 20):
            self._found_damage(f"its id is no message id: {read.id[:40]!r}")
            return None
        return read

    def _compare(self, body: Body, sender: int, n: int, last: int) -> None:
        if (body.conversation_id, body.seq) != (self._name, self._seq):
            self._found_damage(f"its body is that of {body.conversation_id} {body.seq}")
        if self._walk.name(sender) != inbox_topic(body.from_user_id):
            self._found_damage(f"its body says it is from {body.from_user_id}, which its row does not")
        count = self._count.after(body.type, self._seq) if self._count else Count(n, last)
        if (n, last) != (count.n, count.last) or body.n not in (None, n):
            self._found_damage(f"n is {n} (in its body {body.n}) and should be {count.n}")
        if body.client_msg_id is not None:
            key = self._walk.value(_KEYED, sender, self._number, body.client_msg_id)
            if key is None:
                self._walk.found("dangling", f"{self._name} {self._seq}", "its client_msg_id is not kept")
            elif key != self._number << OFFSET_BITS | self._seq:
                detail = f"its client_msg_id is that of seq {key % OFFSETS}, too"
                self._walk.found("duplicate", f"{self._name} {self._seq}", detail)

    def _check_ids(self, ids: dict[int, int]) -> None:
        known = self._walk.rows(_IDS, msgspec.json.encode(list(ids)).decode())
        for message_id, key in known:
            where = f"{self._name} {ids[message_id] % OFFSETS}"
            if key is None:
                self._walk.found("dangling", where, f"its id {message_id} cannot be looked up")
            elif key != ids[message_id]:
                other = f"{self._walk.name(key >> OFFSET_BITS)} {key % OFFSETS}"
                self._walk.found("duplicate", where, f"its id {message_id} is that of {other}, too")

    def _check_listed(self, user: str) -> None:
        inbox = self._walk.number(inbox_topic(user))
        if inbox is None or self._walk.value(_LISTED, inbox, self._number) is None:
            self._walk.found("dangling", self._name, f"is not listed for {user}")


class _Inbox:
    """An inbox: it has all messages of its private conversations, each once and in their order."""

    def __init__(self, walk: Walk, number: int, name: str) -> None:
        self._walk = walk
        self._number = number
        self._name = name
        self._seqs: dict[int, int] = {}
        """Conversation -> the seq of its last message so far."""
        self._forgot = False

    def check(self, total: int) -> Iterator[Verified]:
        walk = self._walk
        base = self._number << OFFSET_BITS
        offset = 0
        while rows := walk.page(_ENTRIES, base + offset, base + OFFSETS):
            for key, message, is_dangling in rows:
                _skipped(walk, self._name, offset + 1, key - base)
                offset = key - base
                if is_dangling:
                    walk.found("dangling", f"{self._name} {offset}", f"there is no {self._shown(message)}")
                self._follow(offset, message)
            yield from walk.report(self._number, total)
        if not self._forgot:
            self._check_ends()

    def _shown(self, message: int) -> str:
        log = message >> OFFSET_BITS
        return f"{self._walk.name(log) or f'log {log}'} {message % OFFSETS}"

    def _follow(self, offset: int, message: int) -> None:
        if len(self._seqs) >= _MOST_CONVERSATIONS:
            self._seqs.clear()
            self._forgot = True
        conversation, seq = message >> OFFSET_BITS, message % OFFSETS
        before = self._seqs.get(conversation, seq - 1 if self._forgot else 0)
        if seq <= before:
            self._walk.found("duplicate", f"{self._name} {offset}", f"{self._shown(message)} is there before")
        elif seq > before + 1:
            self._walk.found("gap", f"{self._name} {offset}", self._lacks(conversation, before + 1, seq - 1))
        self._seqs[conversation] = max(seq, before)

    def _check_ends(self) -> None:
        """What was not reached: the last messages of the conversations, and whole conversations."""
        for (conversation,) in self._walk.rows(_PRIVATE, self._number):
            head, seen = self._walk.head("messages", conversation), self._seqs.get(conversation, 0)
            if head > seen:
                self._walk.found("gap", self._name, self._lacks(conversation, seen + 1, head))

    def _lacks(self, conversation: int, first: int, last: int) -> str:
        seqs = f"{first}" if first == last else f"{first} to {last}"
        return f"lacks {self._walk.name(conversation) or f'log {conversation}'} {seqs}"


def _check_events(walk: Walk, number: int, name: str, total: int) -> Iterator[Verified]:
    """A user's events: the last ones of their log, which may be deleted from its beginning at any time."""
    base = number << OFFSET_BITS
    before = 0
    while rows := walk.page(_EVENTS, base + before, base + OFFSETS):
        for place, (key, body, stored) in enumerate(rows):
            if place:
                _skipped(walk, name, before + 1, key - base)
            before = key - base
            if stored is not None and checksum(key, body) != stored:
                walk.found("checksum", f"{name} {before}", _OTHER_BODY)
            elif not _is_object(body):
                walk.found("damaged", f"{name} {before}", "its body cannot be read")
        yield from walk.report(number, total)


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
