"""MessageLog in memory."""

from collections.abc import Iterable, Sequence

from broker.domain.conversation import participants
from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Count, Entry, Stamped
from broker.ports import DedupKey, KeptEvent, Located

from .contents import Contents, Message, Opened


class MemoryMessageLog:
    """See `broker.ports.MessageLog`."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    async def append(self, batch: Sequence[Stamped]) -> None:
        contents = self._opened.contents
        _check(contents, batch)  # nothing can fail after this, so the batch is atomic
        for stamped in batch:
            _add(contents, stamped)

    async def append_events(self, batch: Sequence[KeptEvent], kept: int) -> None:
        contents = self._opened.contents
        heads: dict[str, int] = {}
        for event in batch:
            head = heads[event.log] if event.log in heads else contents.event_head(event.log)
            if event.offset <= head:
                raise DuplicateMessageError(f"{event.log}: offset {event.offset} is taken")
            heads[event.log] = event.offset
        for event in batch:
            log = contents.events.setdefault(event.log, {})
            log[event.offset] = event.body
            for offset in [offset for offset in log if offset <= event.offset - kept]:
                del log[offset]

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        contents = self._opened.contents
        return {
            name: contents.event_head(name) if name.endswith("/events") else len(contents.log(name))
            for name in logs
        }

    async def counts(self, conversations: Sequence[str]) -> dict[str, Count]:
        logs = {name: self._opened.contents.log(name) for name in conversations}
        return {name: messages[-1].count if messages else Count() for name, messages in logs.items()}

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        if log.endswith("/events"):
            events = sorted(self._opened.contents.events.get(log, {}).items())
            return _within((Entry(*each) for each in events if each[0] > after), max_bytes)[:limit]
        messages = self._opened.contents.log(log)
        first = max(0, after)
        return _within(_entries(messages, range(first, min(first + limit, len(messages)))), max_bytes)

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        messages = self._opened.contents.log(log)
        end = max(0, min(before - 1, len(messages)))
        backwards = range(end - 1, max(0, end - limit) - 1, -1)
        return _within(_entries(messages, backwards), max_bytes)[::-1]

    async def amendments(
        self, conversation_id: str, seq: int, after: int, limit: int, max_bytes: int
    ) -> list[Entry]:
        messages = self._opened.contents.conversations.get(conversation_id, [])
        if not 0 < seq <= len(messages):
            return []
        later = [number - 1 for number in messages[seq - 1].amended_by if number > after]
        return _within(_entries(messages, later[:limit]), max_bytes)

    async def locate(self, ids: Sequence[int]) -> dict[int, Located]:
        known = self._opened.contents.by_id
        return {
            number: Located(message.conversation_id, message.seq, message.body)
            for number in ids
            if (message := known.get(number)) is not None
        }

    async def last_id(self) -> int:
        return max(self._opened.contents.by_id, default=0)

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        known = self._opened.contents.by_key
        return {key: known[key].body for key in keys if key in known}


def _check(contents: Contents, batch: Sequence[Stamped]) -> None:
    """Raise what `MessageLog.append` raises, before anything is changed."""
    if len(contents.by_id) + len(batch) > contents.capacity:
        raise StoreError(f"the store is full: it keeps {contents.capacity} messages")
    keys: set[DedupKey] = set()
    heads: dict[str, int] = {}
    for stamped in batch:
        key = _key(stamped)
        if key is not None:
            if key in contents.by_key or key in keys:
                raise DuplicateMessageError(f"{key} is stored")
            keys.add(key)
        for log, offset in _places(stamped):
            head = heads[log] if log in heads else len(contents.log(log))
            if offset <= head:
                raise DuplicateMessageError(f"{log}: offset {offset} is taken")
            if offset > head + 1:
                raise StoreError(f"{log}: offset {offset} leaves a gap")
            heads[log] = offset
        for amendment in stamped.draft.amends:
            if not 0 < amendment.seq < stamped.seq:
                raise StoreError(f"there is no message {amendment.seq} to amend")


def _add(contents: Contents, stamped: Stamped) -> None:
    draft, key = stamped.draft, _key(stamped)
    conversation_id = draft.conversation_id
    message = Message(
        stamped.id,
        draft.sender,
        conversation_id,
        stamped.seq,
        draft.qos,
        stamped.body,
        draft.properties,
        stamped.count,
        amended_by=[],
        mentions=_mentioned(draft.content.mentions),
    )
    conversation = contents.conversations.setdefault(conversation_id, [])
    conversation.append(message)
    for inbox in draft.logs:
        contents.inboxes.setdefault(inbox, []).append(message)
    contents.by_id[message.id] = message
    if key is not None:
        contents.by_key[key] = message
    if message.seq == 1:
        for user in participants(conversation_id) or ():
            contents.view(user, conversation_id)  # so that `private_conversations` lists it
    for amendment in draft.amends:
        target = conversation[amendment.seq - 1]
        target.body = amendment.body
        if draft.content.type == "recall":
            target.mentions.clear()
        target.amended_by.append(message.seq)


def _mentioned(mentions: list[str] | str | None) -> set[str]:
    return {""} if mentions == "all" else set(mentions or ())


def _key(stamped: Stamped) -> DedupKey | None:
    draft, client_msg_id = stamped.draft, stamped.draft.content.client_msg_id
    return None if client_msg_id is None else DedupKey(draft.sender, draft.conversation_id, client_msg_id)


def _places(stamped: Stamped) -> list[tuple[str, int]]:
    conversation = (stamped.draft.conversation_id, stamped.seq)
    return [conversation, *zip(stamped.draft.logs, stamped.offsets, strict=True)]


def _entries(messages: Sequence[Message], indexes: Iterable[int]) -> Iterable[Entry]:
    for index in indexes:
        message = messages[index]
        yield Entry(index + 1, message.body, message.qos, message.properties)


def _within(entries: Iterable[Entry], max_bytes: int) -> list[Entry]:
    """Entries up to `max_bytes` of bodies in all, but at least one."""
    taken: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.body)
        if taken and size > max_bytes:
            break
        taken.append(entry)
    return taken
