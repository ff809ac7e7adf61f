"""StateStore on MongoDB: persistent sessions, retained messages, and users' watermarks and marks."""

import logging
from collections.abc import Sequence
from contextlib import aclosing
from secrets import randbits

from broker.domain.errors import StoreError
from broker.domain.topics import is_wild, matches
from broker.ports import (
    Applied,
    Claimed,
    Held,
    Marked,
    Retained,
    Seen,
    SessionKey,
    SessionState,
    StateChange,
    StoredSession,
    Subscribed,
    Unseen,
)
from plugins.persistence.mongodb.client import Database, Transaction
from plugins.persistence.mongodb.failures import is_duplicate
from plugins.persistence.mongodb.operations import Delete, Document, Insert, Operation, Update
from plugins.persistence.mongodb.places import CHUNK, chunks
from plugins.persistence.mongodb.retained import held_of, operation_of, ranges_of, retained_of
from plugins.persistence.mongodb.sessions import (
    BOUNDS,
    LISTED,
    SessionChanges,
    deletes,
    filters_of,
    key_of,
    listed,
    new_session,
    queue_place,
    session_id,
    state_of,
)
from plugins.persistence.mongodb.views import ViewChanges

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
"""Of loading a session that changes meanwhile, and of changes that another node makes at the same moment."""


class MongoStateStore:
    """See `broker.ports.StateStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def apply(self, changes: Sequence[StateChange]) -> Applied:
        if not changes:
            return Applied()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._apply(changes)
            except StoreError as error:
                # Another node has made the same document: now it is found.
                if not is_duplicate(error.__cause__) or attempt == _ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def _apply(self, changes: Sequence[StateChange]) -> Applied:
        mark = randbits(63)
        queued: str | None = None

        async def work(transaction: Transaction) -> Applied:
            nonlocal queued
            applied, queued = await _make(transaction, changes, mark)
            return applied

        async def is_in() -> bool:
            if queued is None:
                return False  # what does no harm twice is done again
            found = await self._database.one("queued", queued, ["mark"])
            return found is not None and found["mark"] == mark

        return await self._database.transaction(work, is_in)

    # --- sessions --------------------------------------------------------------------

    async def load(self, key: SessionKey) -> SessionState | None:
        which = session_id(key)
        document: Document | None = None
        for _ in range(_ATTEMPTS):
            document = await self._database.one("sessions", which)
            if document is None:
                return None
            places = [queue_place(which, number) for number in range(document["first"], document["next"])]
            queue = await self._database.by_ids("queued", places)
            if len(queue) == len(places):
                return state_of(document, [queue[where] for where in places])
            # The session was changed in between.
        logger.error("%d messages of the queue of %r are lost", len(places) - len(queue), which)
        return None if document is None else state_of(document, [queue[w] for w in places if w in queue])

    async def claim(self, key: SessionKey, at: int) -> Claimed:
        which = session_id(key)
        for attempt in range(1, _ATTEMPTS + 1):
            change = {"$inc": {"epoch": 1}, "$set": {"saved_at": at}}
            document = await self._database.change("sessions", which, change)
            if document is not None:
                # Nobody changes the queue now: what others have begun to queue is stale.
                places = [queue_place(which, number) for number in range(document["first"], document["next"])]
                queue = await self._database.by_ids("queued", places)
                kept = [queue[where] for where in places if where in queue]
                return Claimed(int(document["epoch"]), state_of(document, kept))
            try:
                await self._database.write("sessions", Insert(new_session(key, at)))
            except StoreError as error:
                # Another node has made it at the same moment: now it is found.
                if not is_duplicate(error.__cause__) or attempt == _ATTEMPTS:
                    raise
            else:
                return Claimed(at, None)
        raise AssertionError("unreachable")

    async def subscriptions(self, user: str | None = None) -> list[Subscribed]:
        where = {} if user is None else {"user": user}
        async with aclosing(
            self._database.each("sessions", where, ("user", "client_id", "filters", "epoch"))
        ) as found:
            return [Subscribed(key_of(each), filters_of(each), int(each["epoch"])) async for each in found]

    async def sessions(self, user: str | None, after: SessionKey, limit: int) -> list[StoredSession]:
        of_whom = after.user if user is None else user
        # A client id of another user says nothing about this one's.
        beyond = {"client_id": {"$gt": after.client_id}} if after.user == of_whom else {}
        sort = {"user": 1, "client_id": 1}
        found = await self._database.many("sessions", {"user": of_whom, **beyond}, LISTED, sort, limit)
        if user is None and len(found) < limit:
            others = {"user": {"$gt": of_whom}}
            found += await self._database.many("sessions", others, LISTED, sort, limit - len(found))
        return [listed(document) for document in found]

    async def client_ids(self, user: str, limit: int) -> list[str]:
        found = await self._database.many("sessions", {"user": user}, ["client_id"], limit=limit)
        return [document["client_id"] for document in found]

    async def expiring(self, before: int, limit: int) -> list[SessionKey]:
        where = {"saved_at": {"$lt": before}}
        found = await self._database.many("sessions", where, ("user", "client_id"), limit=limit)
        return [key_of(document) for document in found]

    async def expire(self, before: int, keep: Sequence[SessionKey], now: int) -> int:
        kept = [session_id(key) for key in keep]

        async def touch(transaction: Transaction) -> None:
            which = [{"_id": {"$in": list(chunk)}} for chunk in chunks(kept)]
            touched = [Update(each, {"$set": {"saved_at": now}}, many=True) for each in which]
            await transaction.write(("sessions", touched))

        async def expire(transaction: Transaction) -> int:
            found = await transaction.many("sessions", {"saved_at": {"$lt": before}}, BOUNDS, limit=CHUNK)
            queued = [
                queue_place(document["_id"], number)
                for document in found
                for number in range(document["first"], document["next"])
            ]
            sessions = [Delete({"_id": each["_id"]}) for each in found]
            await transaction.write(("queued", deletes(queued)), ("sessions", sessions))
            return len(found)

        if kept:
            await self._database.transaction(touch)
        expired = 0
        # Some at a time: a transaction should not be long.
        while some := await self._database.transaction(expire):
            expired += some
        return expired

    # --- retained messages -----------------------------------------------------------

    async def retained(self, topic_filter: str, after: str, limit: int) -> list[Retained]:
        if not is_wild(topic_filter):
            exact = await self.retained_on([topic_filter] if topic_filter > after else [])
            return list(exact.values())[:limit]
        matching: list[Retained] = []
        for where in ranges_of(topic_filter, after):
            async with aclosing(self._database.each("retained", where, sort={"_id": 1})) as found:
                async for document in found:
                    if matches(topic_filter, document["_id"]):
                        matching.append(retained_of(document))
                        if len(matching) == limit:
                            return matching
        return matching

    async def retained_on(self, topics: Sequence[str]) -> dict[str, Retained]:
        found = await self._database.by_ids("retained", list(dict.fromkeys(topics)))
        return {topic: retained_of(document) for topic, document in found.items()}

    async def held(self) -> dict[str, Held]:
        held: dict[str, Held] = {}
        # "0" is the character after "/".
        for where in ({"_id": {"$lt": "users/"}}, {"_id": {"$gte": "users0"}}):
            async with aclosing(self._database.each("retained", where, ("owner", "size"))) as found:
                held |= {document["_id"]: held_of(document) async for document in found}
        return held

    async def live_retained(self) -> list[str]:
        found = await self._database.many("retained", {"live": True}, ["_id"])
        return [document["_id"] for document in found]


async def _make(
    transaction: Transaction, changes: Sequence[StateChange], mark: int
) -> tuple[Applied, str | None]:
    """Make changes. Returns also the key of one of the messages that they queued."""
    of_sessions = SessionChanges(transaction, mark)
    of_views = ViewChanges(transaction)
    retained: dict[str, Operation] = {}
    dropped = 0
    views = [each for each in changes if isinstance(each, Seen | Marked | Unseen)]
    await of_views.begin(views)
    sessions = [each for each in changes if not isinstance(each, Seen | Marked | Unseen | Retained)]
    await of_sessions.begin(sessions)
    for change in changes:
        if isinstance(change, Retained):
            retained[change.topic] = operation_of(change)
        elif isinstance(change, Seen | Marked | Unseen):
            await of_views.make(change)
        else:
            dropped += await of_sessions.make(change)
    await transaction.write(*of_sessions.writes(), *of_views.writes(), ("retained", list(retained.values())))
    return Applied(dropped, of_sessions.stale), of_sessions.first_queued()
