"""The collections, their indexes, and the schema as a list of migration steps.

A released step is never edited: a change is a new step. The document `schema` of `meta` holds the number of
steps the database has taken.

| collection | one document for | `_id` |
|---|---|---|
| messages | a message of a conversation | its place |
| entries | an entry of an inbox, which refers to a message | its place |
| events | an event of a user | its place |
| heads | a log: its last entry, and its first if the oldest go | the log |
| sent | a `client_msg_id` of a sender in a conversation; "" for their last message there | the three |
| ids | a message id | the id |
| amendments | an edit or recall of a message | both places |
| mentions | a user whom a message mentions; "" for everybody | the place and the user |
| conversations | a user's watermarks and marks in a conversation | both |
| sessions | a persistent session | user and client id |
| queued | a message in a session's queue | the session and its number in the queue |
| retained | a retained message | the topic |
| meta | the schema, the identity, the lock of migrations | what it is |

Places (`places.py`) make the few reads that matter reads of exact keys, also of many at once.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from secrets import token_hex

from pymongo import IndexModel

from broker.domain.errors import StoreError
from plugins.persistence.mongodb.client import Database
from plugins.persistence.mongodb.failures import is_duplicate
from plugins.persistence.mongodb.operations import Delete, Insert, Update

logger = logging.getLogger(__name__)

META = "meta"
_SCHEMA = "schema"
_LOCK = "lock"
_BEAT_SECONDS = 1.0
_DEAD_SECONDS = 15.0
"""A node that migrates and has not said so for this long has died. Measured by the clock of who waits, so
clocks need not agree."""
_POLL_SECONDS = 0.1
_LONGEST_MIGRATION = 24 * 3600.0

INDEXES: Mapping[str, list[IndexModel]] = {
    "messages": [],
    "entries": [],
    "events": [],
    "heads": [],
    "sent": [],
    "ids": [],
    "amendments": [IndexModel({"target": 1, "message": 1})],
    "mentions": [IndexModel({"user": 1, "conversation": 1, "seq": 1})],
    "conversations": [
        IndexModel({"user": 1, "conversation": 1}),
        IndexModel({"conversation": 1, "user": 1}),
        IndexModel({"changed_at": 1}),
    ],
    "sessions": [IndexModel({"user": 1, "client_id": 1}), IndexModel({"saved_at": 1})],
    "queued": [],
    # Few messages have the field.
    "retained": [IndexModel({"live": 1}, sparse=True)],
    META: [],
}


async def make_indexes(database: Database) -> None:
    """Create the collections and indexes that are missing."""
    await database.create(INDEXES)


Step = Callable[[Database], Awaitable[None]]
"""May be called again after a node was killed in the middle of it."""

STEPS: tuple[Step, ...] = (make_indexes,)


async def migrate(database: Database) -> None:
    """Bring the database to the newest schema, and create the indexes that are missing. Of several nodes
    that start at once, one does it and the others wait.

    Raises:
        StoreError: the database was written by a newer version, or cannot be reached.
    """
    if (version := await _version(database)) == len(STEPS):
        await make_indexes(database)
        # It changes nothing, and fails where no majority confirms writes.
        await database.write(META, Update({"_id": _SCHEMA}, {"$set": {"version": version}}))
        return
    until = time.monotonic() + _LONGEST_MIGRATION
    owner = token_hex(8)
    while time.monotonic() < until:
        if await _lock(database, owner):
            beating = asyncio.create_task(_beat(database, owner))
            try:
                await _take_steps(database)
                return
            finally:
                beating.cancel()
                with suppress(asyncio.CancelledError):
                    await beating
                await database.write(META, Delete({"_id": _LOCK, "owner": owner}))
        if await _wait_for_other(database):
            return
    raise StoreError(f"mongodb {database.where}: another node migrates the database and does not end")


async def _version(database: Database) -> int:
    """How many steps the database has taken. Raises `StoreError` if they are more than there are."""
    document = await database.one(META, _SCHEMA)
    version = int(document["version"]) if document else 0
    if version > len(STEPS):
        raise StoreError(
            f"mongodb {database.where}: the database has schema version {version}, newer than version "
            f"{len(STEPS)} of this program: use a newer Parley"
        )
    return version


async def _take_steps(database: Database) -> None:
    version = await _version(database)
    for number, step in enumerate(STEPS[version:], start=version + 1):
        await step(database)
        change = {"$set": {"version": number}}
        await database.write(META, Update({"_id": _SCHEMA}, change, upsert=True))
        logger.info("mongodb %s: migrated to schema version %d", database.where, number)


# --- the lock -------------------------------------------------------------------------------


async def _lock(database: Database, owner: str) -> bool:
    """Take the lock if nobody has it."""
    try:
        await database.write(META, Insert({"_id": _LOCK, "owner": owner, "beat": 0}))
    except StoreError as error:
        if not is_duplicate(error.__cause__):
            raise
        return False
    return True


async def _beat(database: Database, owner: str) -> None:
    """Show that the owner of the lock lives."""
    while True:
        await asyncio.sleep(_BEAT_SECONDS)
        with suppress(StoreError):
            await database.write(META, Update({"_id": _LOCK, "owner": owner}, {"$inc": {"beat": 1}}))


async def _wait_for_other(database: Database) -> bool:
    """Wait while another node migrates. Returns True when it has; False when the lock is free: its owner has
    failed, or died and lost the lock."""
    seen: tuple[str, int] = "", -1
    since = time.monotonic()
    while (lock := await database.one(META, _LOCK)) is not None:
        if (lock["owner"], lock["beat"]) != seen:
            seen, since = (lock["owner"], lock["beat"]), time.monotonic()
        elif time.monotonic() - since > _DEAD_SECONDS:
            await database.write(META, Delete({"_id": _LOCK, "owner": seen[0], "beat": seen[1]}))
        await asyncio.sleep(_POLL_SECONDS)
    return await _version(database) == len(STEPS)
