"""MessageLog on MongoDB."""

from collections.abc import Awaitable, Sequence
from secrets import randbits
from typing import NamedTuple

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Count, Entry, Stamped
from broker.domain.topics import parse_topic
from broker.ports import DedupKey, KeptEvent, Located
from plugins.persistence.compression import Compression
from plugins.persistence.mongodb.appending import EventBatch, MessageBatch
from plugins.persistence.mongodb.client import Database, Reader
from plugins.persistence.mongodb.failures import is_duplicate
from plugins.persistence.mongodb.operations import Document
from plugins.persistence.mongodb.places import CHUNK, OFFSETS, clamped, key, place, split
from plugins.persistence.mongodb.stored import body_of, entry_of, event_of

_TYPICAL_BODY = 2048
"""Bytes. How many entries are read at first so that not much more is read than is asked for."""


class _Ends(NamedTuple):
    """The first and the last offset of a log."""

    first: int
    head: int


class MongoMessageLog:
    """See `broker.ports.MessageLog`."""

    def __init__(self, database: Database, compression: Compression) -> None:
        self._database = database
        self._compression = compression

    async def append(self, batch: Sequence[Stamped]) -> None:
        if not batch:
            return
        documents = MessageBatch(batch, self._compression)

        async def is_in() -> bool:
            found = await self._database.one("messages", documents.first, ["id"])
            return found is not None and found["id"] == documents.first_id

        await _commit(self._database.transaction(documents.write, is_in))

    async def append_events(self, batch: Sequence[KeptEvent], kept: int) -> None:
        if not batch:
            return
        documents = EventBatch(batch, kept, randbits(63))

        async def is_in() -> bool:
            found = await self._database.one("events", documents.first, ["mark"])
            return found is not None and found["mark"] == documents.mark

        await _commit(self._database.transaction(documents.write, is_in))

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        found = await self._database.by_ids("heads", logs, ["head"])
        return {log: found[log]["head"] if log in found else 0 for log in logs}

    async def counts(self, conversations: Sequence[str]) -> dict[str, Count]:
        found = await self._database.by_ids("heads", conversations, ["n", "last"])
        return {
            log: Count(found[log]["n"], found[log]["last"]) if log in found else Count()
            for log in conversations
        }

    # --- reading a log ---------------------------------------------------------------

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        ends = await _ends(self._database, log)
        first = max(clamped(after) + 1, ends.first)
        return await self._within(log, range(first, min(first + limit, ends.head + 1)), max_bytes)

    async def read_back(self, log: str, before: int, limit: int, max_bytes: int) -> list[Entry]:
        ends = await _ends(self._database, log)
        last = min(before - 1, ends.head)
        backwards = range(last, max(last - limit, ends.first - 1), -1)
        return (await self._within(log, backwards, max_bytes))[::-1]

    async def _within(self, log: str, offsets: range, max_bytes: int) -> list[Entry]:
        """Entries up to `max_bytes` of bodies in all, but at least one: a reader must get ahead."""
        taken: list[Entry] = []
        size, done = 0, 0
        while done < len(offsets):
            typical = max(1, size // done) if done else _TYPICAL_BODY
            part = offsets[done : done + max(1, min(CHUNK, (max_bytes - size) // typical))]
            for entry in await self._entries(log, part):
                size += len(entry.body)
                if size > max_bytes and taken:
                    return taken
                taken.append(entry)
            done += len(part)
        return taken

    async def _entries(self, log: str, offsets: Sequence[int]) -> list[Entry]:
        if log.startswith("users/"):
            if log.endswith("/events"):
                events = await self._whole("events", [place(log, offset) for offset in offsets])
                return [event_of(log, offset, events.get(place(log, offset))) for offset in offsets]
            return await self._inbox_entries(log, offsets)
        messages = await self._whole("messages", [place(log, offset) for offset in offsets])
        return [entry_of(offset, (where := place(log, offset)), messages.get(where)) for offset in offsets]

    async def _inbox_entries(self, log: str, offsets: Sequence[int]) -> list[Entry]:
        owner = parse_topic(log).owner
        entries = await self._whole("entries", [place(log, offset) for offset in offsets])
        pointers = [str(entries.get(place(log, offset), {}).get("message", "/0")) for offset in offsets]
        messages = await self._whole("messages", list(dict.fromkeys(pointers)))
        return [
            entry_of(offset, where, messages.get(where), owner)
            for offset, where in zip(offsets, pointers, strict=True)
        ]

    async def _whole(self, collection: str, places: Sequence[str]) -> dict[str, Document]:
        """The documents at places that must exist. Those of which there is none are lost."""
        found = await self._database.by_ids(collection, places)
        missing = [where for where in places if where not in found]
        if missing:
            # Unless it was read from a primary that is none any more, and older than what told of the places.
            async def again(reader: Reader) -> dict[str, Document]:
                await _ends(reader, split(missing[0])[0])
                return await reader.by_ids(collection, missing)

            found |= await self._database.in_order(again)
        return found

    async def amendments(
        self, conversation_id: str, seq: int, after: int, limit: int, max_bytes: int
    ) -> list[Entry]:
        taken: list[Entry] = []
        size, position = 0, place(conversation_id, clamped(after))
        while 0 < seq < OFFSETS and len(taken) < limit:
            later = {"target": place(conversation_id, seq), "message": {"$gt": position}}
            asked = min(CHUNK, limit - len(taken))
            found = await self._database.many("amendments", later, ["message"], {"message": 1}, asked)
            places = [each["message"] for each in found]
            messages = await self._whole("messages", places)
            for where in places:
                entry = entry_of(split(where)[1], where, messages.get(where))
                size += len(entry.body)
                if size > max_bytes and taken:
                    return taken
                taken.append(entry)
            if len(found) < asked:
                break
            position = places[-1]
        return taken

    # --- by id -----------------------------------------------------------------------

    async def locate(self, ids: Sequence[int]) -> dict[int, Located]:
        # A client may send any number; the store takes 64 bits.
        known = list(dict.fromkeys(number for number in ids if 0 <= number < 1 << 63))
        found = await self._database.by_ids("ids", known)
        places = {number: str(document["message"]) for number, document in found.items()}
        messages = await self._whole("messages", list(places.values()))
        return {
            number: Located(*split(where), body_of(where, messages.get(where), number))
            for number, where in places.items()
        }

    async def last_id(self) -> int:
        found = await self._database.many("ids", {}, ["_id"], {"_id": -1}, 1)
        return int(found[0]["_id"]) if found else 0

    async def find(self, keys: Sequence[DedupKey]) -> dict[DedupKey, bytes]:
        asked = {key(each.sender, each.conversation_id, each.client_msg_id): each for each in keys}
        sent = await self._database.by_ids("sent", list(asked))
        places = {asked[each]: place(asked[each].conversation_id, sent[each]["seq"]) for each in sent}
        messages = await self._whole("messages", list(places.values()))
        return {each: body_of(where, messages.get(where)) for each, where in places.items()}


async def _commit(transaction: Awaitable[None]) -> None:
    try:
        await transaction
    except StoreError as error:
        # A unique key is taken: a (log, offset), a message id, or an idempotency key.
        if is_duplicate(error.__cause__):
            raise DuplicateMessageError(str(error)) from error
        raise


async def _ends(reader: Reader, log: str) -> _Ends:
    found = await reader.one("heads", log, ["head", "first"])
    return _Ends(1, 0) if found is None else _Ends(found.get("first", 1), found["head"])
