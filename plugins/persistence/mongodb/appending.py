"""Commits of messages and events: each is one transaction.

The heads of the logs are first. Each is changed only if it is still the one before the batch, so of two
writers one finds another head, or meets the other's transaction, and writes nothing.
"""

from collections.abc import Mapping, Sequence

from broker.domain.conversation import participants
from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Stamped
from broker.ports import KeptEvent
from plugins.persistence.compression import Compression
from plugins.persistence.mongodb.client import Transaction
from plugins.persistence.mongodb.operations import Delete, Document, Insert, Operation, Update
from plugins.persistence.mongodb.places import chunks, key, place
from plugins.persistence.mongodb.stored import amended_fields, event_document, mentioned, message_document
from plugins.persistence.mongodb.views import new_view


class Head:
    """What a batch adds to a log."""

    __slots__ = ("changed", "first", "last")

    def __init__(self, first: int) -> None:
        self.first = first
        self.last = first - 1
        self.changed: Document = {}

    def add(self, log: str, offset: int) -> None:
        """The next entry. Raises `DuplicateMessageError` or `StoreError` if it is not the next."""
        if offset <= self.last:
            raise DuplicateMessageError(f"offset {offset} of {log} is twice in a batch")
        if offset != self.last + 1:
            raise StoreError(f"offset {offset} of {log} leaves a gap")
        self.last = offset

    def operation(self, log: str) -> Operation:
        """The change of the head, if it is the one before the batch."""
        if self.first == 1:
            return Insert({"_id": log, "head": self.last, **self.changed})
        return Update({"_id": log, "head": self.first - 1}, {"$set": {"head": self.last, **self.changed}})


class MessageBatch:
    """The documents of a batch of messages."""

    def __init__(self, batch: Sequence[Stamped], compression: Compression) -> None:
        self._compression = compression
        self.heads: dict[str, Head] = {}
        self.first = place(batch[0].draft.conversation_id, batch[0].seq)
        self.first_id = batch[0].id
        self._messages: list[Operation] = []
        self._entries: list[Operation] = []
        self._ids: list[Operation] = []
        self._sent: list[Operation] = []
        self._last: dict[str, int] = {}
        self._listed: list[Operation] = []
        self._mentions: list[Operation] = []
        self._amending: list[Stamped] = []
        for stamped in batch:
            self._add(stamped)

    def _add(self, stamped: Stamped) -> None:
        draft = stamped.draft
        where = place(draft.conversation_id, stamped.seq)
        self._add_to_conversation(stamped)
        self._messages.append(Insert(message_document(where, stamped, self._compression)))
        self._ids.append(Insert({"_id": stamped.id, "message": where}))
        self._add_to_inboxes(stamped, where)
        if draft.content.client_msg_id is not None:
            sent = key(draft.sender, draft.conversation_id, draft.content.client_msg_id)
            self._sent.append(Insert({"_id": sent, "seq": stamped.seq}))
        if stamped.is_message:
            self._last[key(draft.sender, draft.conversation_id, "")] = stamped.seq
        if stamped.seq == 1:
            for user in dict.fromkeys(participants(draft.conversation_id) or ()):
                self._listed.append(new_view(user, draft.conversation_id))
        for user in mentioned(stamped):
            mention = {"user": user, "conversation": draft.conversation_id, "seq": stamped.seq}
            self._mentions.append(Insert({"_id": f"{where}/{user}", **mention}))
        if draft.amends:
            self._amending.append(stamped)

    def _add_to_conversation(self, stamped: Stamped) -> None:
        log, seq, count = stamped.draft.conversation_id, stamped.seq, stamped.count
        head = self.heads.setdefault(log, Head(seq))
        head.add(log, seq)
        head.changed.update(id=stamped.id, n=count.n, last=count.last)
        if stamped.is_message:
            head.changed["last_id"] = stamped.id

    def _add_to_inboxes(self, stamped: Stamped, where: str) -> None:
        draft = stamped.draft
        own = f"users/{draft.sender}/inbox"
        for log, offset in zip(draft.logs, stamped.offsets, strict=True):
            self.heads.setdefault(log, Head(offset)).add(log, offset)
            entry = {"_id": place(log, offset), "message": where}
            # `own`: whose inbox it is has sent it.
            self._entries.append(Insert({**entry, "own": True} if log == own else entry))

    async def write(self, transaction: Transaction) -> None:
        """Write all of it. Raises `DuplicateMessageError` or `StoreError`."""
        # The row with client_msg_id "" points to the sender's last message in the conversation. It is written
        # once per batch, however many messages of the sender the batch holds.
        last = [
            Update({"_id": sent}, {"$max": {"seq": seq}}, upsert=True) for sent, seq in self._last.items()
        ]
        await write_at_heads(
            transaction,
            self.heads,
            ("messages", self._messages),
            ("ids", self._ids),
            ("entries", self._entries),
            ("sent", [*self._sent, *last]),
            ("conversations", self._listed),
            ("mentions", self._mentions),
        )
        if self._amending:
            await self._amend(transaction)

    async def _amend(self, transaction: Transaction) -> None:
        """Replace the bodies of earlier messages."""
        changes: list[Operation] = []
        amendments: list[Operation] = []
        recalled = []
        for stamped in self._amending:
            log, recalls = stamped.draft.conversation_id, stamped.draft.content.type == "recall"
            for amendment in stamped.draft.amends:
                if not 0 < amendment.seq < stamped.seq:
                    raise StoreError(f"there is no message {amendment.seq} to amend")
                where, by = place(log, amendment.seq), place(log, stamped.seq)
                change: Document = {"$set": amended_fields(where, amendment, self._compression)}
                if recalls:
                    recalled.append(where)
                    change["$unset"] = {"mentions": 1}
                changes.append(Update({"_id": where}, change))
                amendments.append(
                    Insert({"_id": f"{where}/{stamped.seq:010d}", "target": where, "message": by})
                )
        await _unmention(transaction, recalled)
        if await transaction.write(("messages", changes), ("amendments", amendments)) != 2 * len(changes):
            raise StoreError("there is no such message to amend")


async def write_at_heads(
    transaction: Transaction, heads: Mapping[str, Head], *parts: tuple[str, Sequence[Operation]]
) -> None:
    """Change the heads of logs, and write inserts and updates. Raises `DuplicateMessageError` if a head is
    not the one before the batch."""
    moves = [head.operation(log) for log, head in heads.items()]
    wanted = len(moves) + sum(len(operations) for _, operations in parts)
    if await transaction.write(("heads", moves), *parts) != wanted:
        raise DuplicateMessageError("the head of a log has changed")


async def _unmention(transaction: Transaction, recalled: Sequence[str]) -> None:
    """A recalled message mentions nobody."""
    found = await transaction.by_ids("messages", recalled, ["mentions"])
    gone = [f"{where}/{user}" for where, message in found.items() for user in message.get("mentions", ())]
    await transaction.write(("mentions", [Delete({"_id": {"$in": list(chunk)}}) for chunk in chunks(gone)]))


class EventBatch:
    """The documents of a batch of events; of each log the last `kept` remain."""

    def __init__(self, batch: Sequence[KeptEvent], kept: int, mark: int) -> None:
        self.first, self.mark = place(batch[0].log, batch[0].offset), mark
        self._kept = kept
        self._heads: dict[str, Head] = {}
        for event in batch:
            self._heads.setdefault(event.log, Head(event.offset)).add(event.log, event.offset)
        self._events: list[Operation] = [Insert(event_document(event, mark)) for event in batch]

    async def write(self, transaction: Transaction) -> None:
        """Write all of it. Raises `DuplicateMessageError` or `StoreError`."""
        before = await transaction.by_ids("heads", list(self._heads), ["first"])
        gone: list[str] = []
        for log, head in self._heads.items():
            oldest = before[log].get("first", 1) if log in before else 1
            first = max(oldest, head.last - self._kept + 1)
            gone += [place(log, offset) for offset in range(oldest, first)]
            head.changed["first"] = first
        await write_at_heads(transaction, self._heads, ("events", self._events))
        await transaction.write(("events", [Delete({"_id": {"$in": list(chunk)}}) for chunk in chunks(gone)]))
