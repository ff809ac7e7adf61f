"""The logs: offsets without gaps, and the entries in them."""

from collections.abc import AsyncGenerator

import msgspec

from broker.domain.conversation import is_conversation, participants
from broker.domain.message import Body, Count, read_body
from broker.domain.topics import parse_topic
from broker.ports import Verified
from plugins.persistence.mongodb.operations import Document
from plugins.persistence.mongodb.places import chunks, key, place, split
from plugins.persistence.mongodb.stored import sound_body
from plugins.persistence.mongodb.verify.walk import Walk

_OTHER_BODY = "its body is not the one that was stored"


async def check_logs(walk: Walk) -> AsyncGenerator[Verified]:
    """All logs, up to their heads."""
    done = 0
    async for page in walk.pages("heads"):
        for head in page:
            log = str(head["_id"])
            if is_conversation(log):
                reports = _Conversation(walk, log).check(head)
            elif log.endswith("/events"):
                reports = _check_events(walk, log)
            else:
                reports = _Inbox(walk, log).check()
            async for report in reports:
                yield report
        done += len(page)
        yield walk.report(done, done + 1)


def _missing(walk: Walk, log: str, missing: list[int]) -> None:
    """Entries that are not there: one finding for each range."""
    while missing:
        first = missing[0]
        length = next((i for i, offset in enumerate(missing) if offset != first + i), len(missing))
        last = first + length - 1
        walk.found("gap", log, f"{first} missing" if first == last else f"{first} to {last} missing")
        missing = missing[length:]


class _Conversation:
    """A conversation: its messages, and what refers to each of them."""

    def __init__(self, walk: Walk, log: str) -> None:
        self._walk = walk
        self._log = log
        self._count: Count | None = Count()
        """Of the messages so far; None where entries are missing."""

    async def check(self, head: Document) -> AsyncGenerator[Verified]:
        walk, log = self._walk, self._log
        for seqs in chunks(range(1, head["head"] + 1)):
            found = await walk.database.by_ids("messages", [place(log, seq) for seq in seqs])
            _missing(walk, log, [seq for seq in seqs if place(log, seq) not in found])
            bodies: dict[int, Body] = {}
            for seq in seqs:
                message = found.get(place(log, seq))
                if message is not None and (body := self._read(seq, message)) is not None:
                    self._compare(seq, message, body)
                    bodies[seq] = body
                self._count = None if message is None else Count(message["n"], message["last"])
            await self._check_references(bodies, found)
            walk.count(len(seqs))
            yield walk.report()
        if self._count not in (None, Count(head["n"], head["last"])):
            walk.found("damaged", log, f"its head counts {head['n']} messages, and its last entry does not")
        await self._check_listed()

    def _found_damage(self, seq: int, detail: str) -> None:
        self._walk.found("damaged", f"{self._log} {seq}", detail)

    def _read(self, seq: int, message: Document) -> Body | None:
        body = sound_body(message["_id"], message)
        if body is None:
            self._walk.found("checksum", f"{self._log} {seq}", _OTHER_BODY)
            return None
        try:
            return read_body(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._found_damage(seq, f"its body cannot be read: {error}")
            return None

    def _compare(self, seq: int, message: Document, body: Body) -> None:
        if (body.conversation_id, body.seq) != (self._log, seq):
            self._found_damage(seq, f"its body is that of {body.conversation_id} {body.seq}")
        if (message["sender"], str(message["id"])) != (body.from_user_id, body.id):
            detail = f"its body says it is {body.id} from {body.from_user_id}, which its document does not"
            self._found_damage(seq, detail)
        n, last = message["n"], message["last"]
        count = self._count.after(body.type, seq) if self._count else Count(n, last)
        if (n, last) != (count.n, count.last) or body.n not in (None, n):
            self._found_damage(seq, f"n is {n} (in its body {body.n}) and should be {count.n}")

    async def _check_references(self, bodies: dict[int, Body], messages: dict[str, Document]) -> None:
        log, walk = self._log, self._walk
        ids = {seq: messages[place(log, seq)]["id"] for seq in bodies}
        known = await walk.database.by_ids("ids", list(ids.values()))
        for seq, message_id in ids.items():
            pointer = known.get(message_id, {}).get("message")
            if pointer is None:
                walk.found("dangling", f"{log} {seq}", f"its id {message_id} cannot be looked up")
            elif pointer != place(log, seq):
                walk.found("duplicate", f"{log} {seq}", f"its id {message_id} is that of {pointer}, too")
        keys = {
            seq: key(body.from_user_id, log, body.client_msg_id)
            for seq, body in bodies.items()
            if body.client_msg_id is not None
        }
        sent = await walk.database.by_ids("sent", list(keys.values()))
        for seq, keyed in keys.items():
            if keyed not in sent:
                walk.found("dangling", f"{log} {seq}", "its client_msg_id is not kept")
            elif sent[keyed]["seq"] != seq:
                detail = f"its client_msg_id is that of seq {sent[keyed]['seq']}, too"
                walk.found("duplicate", f"{log} {seq}", detail)

    async def _check_listed(self) -> None:
        users = dict.fromkeys(participants(self._log) or ())
        ids = {key(user, self._log): user for user in users}
        listed = await self._walk.database.by_ids("conversations", list(ids), ["_id"])
        for which, user in ids.items():
            if which not in listed:
                self._walk.found("dangling", self._log, f"is not listed for {user}")


class _Inbox:
    """An inbox: it has all messages of its private conversations, each once and in their order."""

    def __init__(self, walk: Walk, log: str) -> None:
        self._walk = walk
        self._log = log
        self._seqs: dict[str, int] = {}
        """Conversation -> the seq of its last message so far."""

    async def check(self) -> AsyncGenerator[Verified]:
        walk, log = self._walk, self._log
        # First: what is written after this need not be in the inbox yet.
        where = {"user": parse_topic(log).owner, "conversation": {"$gte": "p:", "$lt": "p;"}}
        private = await walk.database.many("conversations", where, ["conversation"])
        ends = await walk.heads([document["conversation"] for document in private])
        head = (await walk.heads([log]))[log]
        for offsets in chunks(range(1, head + 1)):
            entries = await walk.database.by_ids("entries", [place(log, offset) for offset in offsets])
            _missing(walk, log, [offset for offset in offsets if place(log, offset) not in entries])
            pointers = {split(which)[1]: str(entry["message"]) for which, entry in entries.items()}
            found = await walk.database.by_ids("messages", list(set(pointers.values())), ["_id"])
            for offset in sorted(pointers):
                if pointers[offset] not in found:
                    walk.found("dangling", f"{log} {offset}", f"there is no {_shown(pointers[offset])}")
                self._follow(offset, pointers[offset])
            walk.count(len(offsets))
            yield walk.report()
        for conversation, end in ends.items():
            if end > (seen := self._seqs.get(conversation, 0)):
                walk.found("gap", log, _lacks(conversation, seen + 1, end))

    def _follow(self, offset: int, pointer: str) -> None:
        conversation, seq = split(pointer)
        before = self._seqs.get(conversation, 0)
        if seq <= before:
            detail = f"{_shown(pointer)} is there before"
            self._walk.found("duplicate", f"{self._log} {offset}", detail)
        elif seq > before + 1:
            self._walk.found("gap", f"{self._log} {offset}", _lacks(conversation, before + 1, seq - 1))
        self._seqs[conversation] = max(seq, before)


def _shown(pointer: str) -> str:
    return "{} {}".format(*split(pointer))


def _lacks(conversation: str, first: int, last: int) -> str:
    return f"lacks {conversation} {first}" if first == last else f"lacks {conversation} {first} to {last}"


async def _check_events(walk: Walk, log: str) -> AsyncGenerator[Verified]:
    """A user's events: the last ones of their log, which may be deleted from its beginning at any time."""
    head = await walk.database.one("heads", log) or {}
    for offsets in chunks(range(head.get("first", 1), head.get("head", 0) + 1)):
        found = await walk.database.by_ids("events", [place(log, offset) for offset in offsets])
        missing = [offset for offset in offsets if place(log, offset) not in found]
        if missing:
            first = (await walk.database.one("heads", log) or {}).get("first", 1)
            _missing(walk, log, [offset for offset in missing if offset >= first])
        for where, event in found.items():
            body = sound_body(where, event)
            if body is None:
                walk.found("checksum", f"{log} {split(where)[1]}", _OTHER_BODY)
        walk.count(len(offsets))
        yield walk.report()
