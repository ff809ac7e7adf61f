"""Persistent sessions and their queues.

The messages of a queue are documents of their own, because a queue may be larger than a document. Their
numbers have no gaps, and the session holds the first of them (`first`) and the one that comes next (`next`),
so a queue is read and deleted by exact keys.
"""

from collections.abc import Sequence

import msgspec

from broker.domain.subscription import Subscription, by_filter
from broker.ports import (
    Enqueued,
    Forgotten,
    Lost,
    Moved,
    PacketIds,
    QueuedMessage,
    Redelivery,
    Saved,
    SessionKey,
    SessionState,
    StoredSession,
)
from plugins.persistence.mongodb.client import Transaction
from plugins.persistence.mongodb.operations import Delete, Document, Insert, Operation, Update
from plugins.persistence.mongodb.places import chunks, field_of, key, log_of

SessionChange = Saved | Moved | Enqueued | Forgotten

_encode = msgspec.msgpack.encode
_read_filters = msgspec.msgpack.Decoder(list[Subscription]).decode
_read_inflight = msgspec.msgpack.Decoder(list[Redelivery]).decode
_read_received = msgspec.msgpack.Decoder(list[int]).decode
_read_queued = msgspec.msgpack.Decoder(QueuedMessage).decode
_read_packet_ids = msgspec.msgpack.Decoder(PacketIds).decode
_read_lost = msgspec.msgpack.Decoder(dict[str, Lost]).decode

BOUNDS = ("user", "client_id", "first", "next", "epoch")
"""The fields of a session that say where its queue is, and who has it."""
LISTED = ("user", "client_id", "saved_at", "filters", "cursors", "inflight", "first", "next")
"""The fields that listings show."""


def session_id(session: SessionKey) -> str:
    """The key of a session's document. A client id may hold anything, so it is last."""
    return key(session.user, session.client_id)


def queue_place(session: str, number: int) -> str:
    """The key of a queued message."""
    return f"{session}|{number:010d}"


def filters_of(document: Document) -> dict[str, Subscription]:
    """The subscriptions of a session."""
    return by_filter(_read_filters(document["filters"]))


def key_of(document: Document) -> SessionKey:
    """Whose session a document is."""
    return SessionKey(document["user"], document["client_id"])


def listed(document: Document) -> StoredSession:
    """A session as listings show it."""
    sent = sum(1 for each in _read_inflight(document["inflight"]) if each.packet_id and not each.released)
    waiting = document["next"] - document["first"] + sent
    return StoredSession(
        key_of(document), document["saved_at"], filters_of(document), _cursors_of(document), waiting
    )


def state_of(document: Document, queue: Sequence[Document]) -> SessionState:
    """The state in a session's document and those of its queue."""
    lost = document.get("lost")
    return SessionState(
        filters_of(document),
        _cursors_of(document),
        _read_inflight(document["inflight"]),
        _read_received(document["received"]),
        [_read_queued(each["message"]) for each in queue],
        _read_packet_ids(document["packet_ids"]),
        None if lost is None else _read_lost(lost),
    )


def _cursors_of(document: Document) -> dict[str, int]:
    return {log_of(field): offset for field, offset in document["cursors"].items()}


def new_session(session: SessionKey, at: int) -> Document:
    """The document of a session without subscriptions. Its epoch begins with the time, so that none of one
    that was deleted comes back."""
    edit = _Edit(session_id(session), None)
    edit.save(Saved(session, SessionState({}, {}, [], [], []), at))
    return {"_id": edit.which, **edit.fields, "first": 1, "next": 1, "epoch": at}


class _Edit:
    """A session as a batch of changes leaves it."""

    def __init__(self, which: str, stored: Document | None) -> None:
        self.which = which
        self.was_stored = self.exists = stored is not None
        self.epoch = None if stored is None else stored["epoch"]
        self.stored = self.queue = (1, 1) if stored is None else (stored["first"], stored["next"])
        """The first number of the queue, and the next."""
        self.fields: Document = {}
        """What is set in the document."""
        self.unset: set[str] = set()
        self.pending: dict[int, Document] = {}
        """Messages of the queue that are not stored yet."""

    def is_stale(self, change: Saved | Moved | Enqueued) -> bool:
        """Whether the session has been claimed since, or deleted."""
        return change.epoch is not None and not (self.exists and self.epoch == change.epoch)

    def save(self, change: Saved) -> None:
        state = change.state
        self.exists = True
        self.fields = {
            "user": change.key.user,
            "client_id": change.key.client_id,
            "saved_at": change.at,
            "filters": _encode(list(state.filters.values())),
            "cursors": {field_of(log): offset for log, offset in state.cursors.items()},
            "inflight": _encode(state.inflight),
            "received": _encode(state.received),
            "packet_ids": _encode(state.packet_ids),
        }
        self.unset = {"lost"} if state.lost is None else set()
        if state.lost is not None:
            self.fields["lost"] = _encode(state.lost)
        self.drop(self.queue[1])
        for message in state.queue:
            self.put(message)

    def move(self, change: Moved) -> None:
        cursors = self.fields.get("cursors")
        for log, offset in change.cursors.items():
            if cursors is None:
                self.fields[f"cursors.{field_of(log)}"] = offset
            else:
                cursors[field_of(log)] = offset
        if change.packet_ids is not None:
            self.fields["packet_ids"] = _encode(change.packet_ids)

    def put(self, message: QueuedMessage) -> None:
        first, number = self.queue
        encoded = _encode(message)
        where = queue_place(self.which, number)
        self.pending[number] = {"_id": where, "message": encoded, "size": len(encoded)}
        self.queue = (first, number + 1)

    def drop(self, first: int) -> int:
        """Drop what is queued before a number. Returns how many there were."""
        before, after = self.queue
        dropped = max(0, first - before)
        self.queue = (before + dropped, after)
        for number in range(before, before + dropped):
            self.pending.pop(number, None)
        return dropped

    def forget(self) -> None:
        self.exists = False
        self.fields, self.unset = {}, set()
        self.drop(self.queue[1])

    def operations(self) -> list[Operation]:
        """Changes of the document."""
        if not self.exists:
            return [Delete({"_id": self.which})] if self.was_stored else []
        if self.queue != self.stored or not self.was_stored:
            self.fields["first"], self.fields["next"] = self.queue
        if not self.fields:
            return []
        # `epoch`: raised by each node that claims the session.
        change: Document = {"$set": self.fields, "$setOnInsert": {"epoch": 0}}
        if self.unset:
            change["$unset"] = dict.fromkeys(self.unset, 1)
        return [Update({"_id": self.which}, change, upsert=not self.was_stored)]

    def gone(self) -> list[str]:
        """The keys of stored messages that are not queued any more."""
        first, after = self.stored
        return [queue_place(self.which, number) for number in range(first, min(self.queue[0], after))]


class SessionChanges:
    """Changes of sessions, made in their order. All that they concern is read at first."""

    def __init__(self, transaction: Transaction, mark: int) -> None:
        self._transaction = transaction
        self._mark = mark
        self._edits: dict[str, _Edit] = {}
        self._of_users: dict[str, list[_Edit]] = {}
        self.stale: list[Saved | Moved | Enqueued] = []
        """The changes that were not made, see `Applied`."""

    async def begin(self, changes: Sequence[SessionChange]) -> None:
        """Read where the queues are that are going to change."""
        ids = {session_id(_key(each)) for each in changes if not _is_of_user(each)}
        found = await self._transaction.by_ids("sessions", list(ids), BOUNDS)
        self._edits = {which: _Edit(which, found.get(which)) for which in ids}
        for user in {each.user for each in changes if isinstance(each, Forgotten) and each.client_id is None}:
            for document in await self._transaction.many("sessions", {"user": user}, BOUNDS):
                self._edits.setdefault(document["_id"], _Edit(document["_id"], document))
            prefix = key(user, "")
            self._of_users[user] = [each for each in self._edits.values() if each.which.startswith(prefix)]

    async def make(self, change: SessionChange) -> int:
        """Make one change; returns how many queued messages it dropped."""
        if isinstance(change, Forgotten) and change.client_id is None:
            for each in self._of_users[change.user]:
                each.forget()
            return 0
        edit = self._edits[session_id(_key(change))]
        if not isinstance(change, Forgotten) and edit.is_stale(change):
            self.stale.append(change)
            return 0
        match change:
            case Saved():
                edit.save(change)
            case Moved() if edit.exists:
                edit.move(change)
            case Enqueued() if edit.exists:
                return await self._enqueue(edit, change)
            case Forgotten():
                edit.forget()
        return 0

    async def _enqueue(self, edit: _Edit, change: Enqueued) -> int:
        edit.put(change.message)
        dropped = edit.drop(edit.queue[1] - change.limit)
        # Adding up the sizes takes longer the longer the queue is. Messages of at most an average size cannot
        # exceed the bytes by themselves.
        if len(change.message.payload) * change.limit > change.max_bytes:
            dropped += edit.drop(await self._first_within(edit, change.max_bytes))
        return dropped

    async def _first_within(self, edit: _Edit, max_bytes: int) -> int:
        """The first message of a queue that fits in so many bytes with all after it. The newest always
        does."""
        first, after = edit.queue
        places = [queue_place(edit.which, number) for number in range(first, min(after, edit.stored[1]))]
        stored = await self._transaction.by_ids("queued", places, ["size"])
        size, number = edit.pending[after - 1]["size"], after - 1
        while number > first:
            before = edit.pending.get(number - 1) or stored.get(queue_place(edit.which, number - 1), {})
            size += before.get("size", 0)
            if size > max_bytes:
                break
            number -= 1
        return number

    def first_queued(self) -> str | None:
        """The key of one message that is going to be stored, if there is one."""
        return next((each["_id"] for edit in self._edits.values() for each in edit.pending.values()), None)

    def writes(self) -> list[tuple[str, Sequence[Operation]]]:
        """What has changed, to be written."""
        edits = self._edits.values()
        gone = deletes([where for edit in edits for where in edit.gone()])
        pending = [{**each, "mark": self._mark} for edit in edits for each in edit.pending.values()]
        sessions = [each for edit in edits for each in edit.operations()]
        return [("sessions", sessions), ("queued", [*gone, *(Insert(each) for each in pending)])]


def deletes(places: Sequence[str]) -> list[Operation]:
    """Delete messages of queues."""
    return [Delete({"_id": {"$in": list(each)}}) for each in chunks(places)]


def _is_of_user(change: SessionChange) -> bool:
    return isinstance(change, Forgotten) and change.client_id is None


def _key(change: SessionChange) -> SessionKey:
    if isinstance(change, Forgotten):
        return SessionKey(change.user, change.client_id or "")
    return change.key
