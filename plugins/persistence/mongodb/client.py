"""The one edge to the driver: opening, reading, transactions.

Only this module imports motor. What it offers are plain documents, keys and operations of `pymongo`, so that
another asynchronous driver can take its place.
"""

import asyncio
import logging
import os
import random
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from bson.codec_options import CodecOptions, TypeDecoder, TypeRegistry
from bson.int64 import Int64
from pymongo import DeleteMany, IndexModel, InsertOne, ReplaceOne, ReturnDocument, UpdateMany, UpdateOne
from pymongo.errors import CollectionInvalid, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from broker.domain.errors import StoreError, StoreUnavailableError
from plugins.persistence.mongodb.failures import (
    FAILURES,
    STANDALONE,
    is_in_doubt,
    is_transient,
    is_unreachable,
    is_write_conflict,
    store_error,
    unavailable,
)
from plugins.persistence.mongodb.operations import Delete, Document, Insert, Operation, Put, Update
from plugins.persistence.mongodb.options import Options, driver_settings, servers_of
from plugins.persistence.mongodb.places import chunks

# motor calls the driver in threads, five for each core: more connections than that would never be used. It
# reads this when it is imported.
os.environ.setdefault("MOTOR_MAX_WORKERS", "100")

from motor.frameworks.asyncio import run_on_executor
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession

logger = logging.getLogger(__name__)

T = TypeVar("T")
_CLIENT_BULK_WRITE = 25
"""The wire version (MongoDB 8.0) from which one command writes to several collections."""
_AT_ONCE = 64
"""Up to so many writes go in one command. It saves a few of them half of the CPU and half of the time; the
commands of the collections are as good for many, or better."""

_in_thread: Callable[..., Awaitable[int]] = run_on_executor  # which has no annotations

_ATTEMPTS = 20
"""Of a transaction that meets others."""
_LONGEST_PAUSE = 0.1
_BETWEEN_QUESTIONS = 0.5
"""Seconds between two attempts to learn whether a commit was made."""


class _Integers(TypeDecoder):
    """64-bit integers are read as plain ones. The driver's own type is one that msgspec does not encode."""

    bson_type = Int64

    def transform_bson(self, value: Any) -> int:
        return int(value)


_PLAIN: CodecOptions[dict[str, Any]] = CodecOptions(type_registry=TypeRegistry([_Integers()]))


class Reader:
    """Reads documents, as the majority has them; inside of a transaction, as of its begin."""

    def __init__(self, database: Any, session: Any) -> None:
        self._database = database
        self._session = session

    async def by_ids(
        self, collection: str, ids: Sequence[Any], fields: Sequence[str] | None = None
    ) -> dict[Any, Document]:
        """Id -> document, of those that exist. `fields`: only these, and the id."""
        found: dict[Any, Document] = {}
        for chunk in chunks(ids):
            where = chunk[0] if len(chunk) == 1 else {"$in": chunk}
            for document in await self.many(collection, {"_id": where}, fields):
                found[document["_id"]] = document
        return found

    async def one(self, collection: str, which: Any, fields: Sequence[str] | None = None) -> Document | None:
        """The document with an id."""
        found: Document | None = await self._database[collection].find_one(
            {"_id": which}, _projection(fields), session=self._session
        )
        return found

    async def many(
        self,
        collection: str,
        where: Mapping[str, Any],
        fields: Sequence[str] | None = None,
        sort: Mapping[str, int] | None = None,
        limit: int = 0,
    ) -> list[Document]:
        """The documents that match."""
        cursor = self._database[collection].find(
            where, _projection(fields), session=self._session, sort=_pairs(sort), limit=limit
        )
        found: list[Document] = await cursor.to_list(None)
        return found

    async def summed(self, collection: str, stages: Sequence[Mapping[str, Any]]) -> list[Document]:
        """The result of an aggregation."""
        cursor = self._database[collection].aggregate(list(stages), session=self._session)
        found: list[Document] = await cursor.to_list(None)
        return found


class Transaction(Reader):
    """Reads and writes of which all are committed, or none."""

    def __init__(self, database: Any, session: Any, *, at_once: bool) -> None:
        super().__init__(database, session)
        self._at_once = at_once

    async def write(self, *parts: tuple[str, Sequence[Operation]]) -> int:
        """Write to collections, in this order. Returns how many documents were inserted, or found by an
        update."""
        if self._at_once and sum(len(operations) for _, operations in parts) <= _AT_ONCE:
            return await self._write_at_once(parts)
        # One change of threads for all collections: each costs as much as a small write.
        return await _in_thread(asyncio.get_running_loop(), self._write_each, parts)

    def _write_each(self, parts: Sequence[tuple[str, Sequence[Operation]]]) -> int:
        """In one of the driver's threads, so with the driver itself."""
        database, session = self._database.delegate, self._session.delegate
        return sum(
            _written(
                database[collection].bulk_write([_in_driver(each) for each in operations], session=session)
            )
            for collection, operations in parts
            if operations
        )

    async def _write_at_once(self, parts: Sequence[tuple[str, Sequence[Operation]]]) -> int:
        operations = [
            _in_driver(each, f"{self._database.name}.{collection}")
            for collection, of_collection in parts
            for each in of_collection
        ]
        if not operations:
            return 0
        return _written(await self._database.client.bulk_write(operations, session=self._session))


Work = Callable[[Transaction], Awaitable[T]]
Settled = Callable[[], Awaitable[bool]]


class Database(Reader):
    """One database of a replica set or sharded cluster. Every method raises `StoreError`.

    Writes are confirmed by a majority with their journals; reads see what a majority has."""

    def __init__(self, options: Options) -> None:
        self.where = servers_of(options)
        self._options = options
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "error", UserWarning
                )  # of options of the URI that the driver leaves out
                self._client: Any = AsyncIOMotorClient(options.uri, **driver_settings(options))
        except (*FAILURES, ValueError, UserWarning) as error:
            raise store_error(error, self.where) from error
        super().__init__(self._client.get_database(options.database, _PLAIN), None)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._at_once = False
        self._is_serving = False
        self._is_away = False

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        if self._closed:
            raise StoreError("the store is closed")
        self._running += 1
        self._idle.clear()
        try:
            yield
        except FAILURES as error:
            raise self._told(error) from error
        else:
            if self._is_away:
                self._is_away = False
                logger.warning("mongodb %s: answers again", self.where)
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    def serve(self) -> None:
        """From now on errors that may pass do not name the servers: clients see them. The log does, once."""
        self._is_serving = True

    def _told(self, error: BaseException) -> StoreError:
        full = store_error(error, self.where)
        if not self._is_serving or not isinstance(full, StoreUnavailableError):
            return full
        if not self._is_away:
            self._is_away = True
            logger.error("%s", full)
        return unavailable(error)

    async def close(self) -> None:
        """Finish the running calls, then close the connections."""
        self._closed = True
        await self._idle.wait()
        # It takes leave of the servers, which may be away.
        await asyncio.to_thread(self._client.close)

    # --- reading ---------------------------------------------------------------------

    async def one(self, collection: str, which: Any, fields: Sequence[str] | None = None) -> Document | None:
        async with self._call():
            return await super().one(collection, which, fields)

    async def many(
        self,
        collection: str,
        where: Mapping[str, Any],
        fields: Sequence[str] | None = None,
        sort: Mapping[str, int] | None = None,
        limit: int = 0,
    ) -> list[Document]:
        async with self._call():
            return await super().many(collection, where, fields, sort, limit)

    async def each(
        self,
        collection: str,
        where: Mapping[str, Any],
        fields: Sequence[str] | None = None,
        sort: Mapping[str, int] | None = None,
    ) -> AsyncGenerator[Document]:
        """The documents that match, one by one, in bounded memory."""
        async with self._call():
            cursor = self._database[collection].find(where, _projection(fields), sort=_pairs(sort))
            try:
                async for document in cursor:
                    yield document
            finally:
                await cursor.close()

    async def summed(self, collection: str, stages: Sequence[Mapping[str, Any]]) -> list[Document]:
        async with self._call():
            return await super().summed(collection, stages)

    async def in_order(self, reading: Callable[[Reader], Awaitable[T]]) -> T:
        """Several reads, of which none sees an earlier state than those before it, even if the primary
        changes in between."""
        async with self._call(), await self._client.start_session(causal_consistency=True) as session:
            return await reading(Reader(self._database, session))

    # --- writing ---------------------------------------------------------------------

    async def write(self, collection: str, operation: Operation) -> int:
        """One write of one document. Returns how many were inserted or found."""
        async with self._call():
            return _written(await self._database[collection].bulk_write([_in_driver(operation)]))

    async def change(self, collection: str, which: Any, change: Mapping[str, Any]) -> Document | None:
        """Change the document with an id (findAndModify), again if that meets a transaction. Returns it
        as it is then; None if there is none."""
        async with self._call():
            for attempt in range(_ATTEMPTS):
                try:
                    changed: Document | None = await self._database[collection].find_one_and_update(
                        {"_id": which}, change, return_document=ReturnDocument.AFTER
                    )
                    return changed
                except OperationFailure as error:
                    if not is_write_conflict(error):
                        raise
                await asyncio.sleep(_pause(attempt))
            raise StoreUnavailableError("mongodb: other transactions were always faster")

    async def transaction(self, work: Work[T], settled: Settled | None = None) -> T:
        """Do some work in a transaction, again if it meets others. `work` may be called several times.

        `settled` is asked whether the transaction was made, if the server did not answer to its commit.
        Without it the work is done again then, so it must not matter whether it is done twice.

        Raises:
            StoreUnavailableError: nothing was written; it may work later.
            StoreError: nothing was written; or, as the text says, that is not known.
        """
        async with self._call():
            until = time.monotonic() + self._options.select_timeout / 1000
            for attempt in range(1, _ATTEMPTS + 1):
                async with await self._client.start_session() as session:
                    # Whatever it reads is confirmed before its own writes are: a majority has all that a
                    # primary has written before, or not what came later either.
                    session.start_transaction(read_concern=ReadConcern())
                    try:
                        result = await work(Transaction(self._database, session, at_once=self._at_once))
                    except PyMongoError as error:
                        if not is_transient(error) or is_unreachable(error) or time.monotonic() > until:
                            raise
                    else:
                        if await self._commit(session, settled):
                            return result
                await asyncio.sleep(_pause(attempt))
            raise StoreUnavailableError("mongodb: other transactions were always faster")

    async def _commit(self, session: AsyncIOMotorClientSession, settled: Settled | None) -> bool:
        """Commit. Returns False if nothing was written, and it may be tried again."""
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            # The driver commits again by itself. A server that has started anew meanwhile may not know the
            # transaction, but have made it. So nothing but its documents says how it has ended.
            is_over = is_transient(error)
            if not is_over and not is_in_doubt(error):
                raise
            logger.warning("mongodb %s: it is not known whether a commit was made: %s", self.where, error)
            return await self._learn(session, settled, is_over=is_over)
        return True

    async def _learn(
        self, session: AsyncIOMotorClientSession, settled: Settled | None, *, is_over: bool
    ) -> bool:
        """Commit again until the transaction is over, and see whether it was made."""
        until = time.monotonic() + self._options.settle_timeout / 1000
        while time.monotonic() < until:
            try:
                if not is_over:
                    await self._end(session)
                    is_over = True
                return settled is not None and await settled()
            except (PyMongoError, StoreUnavailableError):
                await asyncio.sleep(_BETWEEN_QUESTIONS)
        raise StoreError("mongodb: the servers cannot be asked whether a commit was made")

    async def _end(self, session: AsyncIOMotorClientSession) -> None:
        """Commit again. On return the transaction is over, one way or the other."""
        try:
            await session.commit_transaction()
        except PyMongoError as error:
            if is_in_doubt(error) and not is_transient(error):
                raise

    # --- the schema ------------------------------------------------------------------

    async def check_servers(self) -> None:
        """Learn what the servers can do. Raises `StoreError` unless there is a primary of a replica set, or a
        router."""
        async with self._call():
            hello = await self._client.admin.command("hello")
            if "setName" not in hello and hello.get("msg") != "isdbgrid":
                raise StoreError(f"mongodb {self.where}: {STANDALONE}")
            self._at_once = hello.get("maxWireVersion", 0) >= _CLIENT_BULK_WRITE

    async def create(self, collections: Mapping[str, Sequence[IndexModel]]) -> None:
        """Create collections and their indexes, those that are missing."""
        async with self._call():
            existing = set(await self._database.list_collection_names())
            for name, indexes in collections.items():
                if name not in existing:
                    with suppress(CollectionInvalid):  # another node was faster
                        await self._database.create_collection(name)
                if indexes:
                    await self._database[name].create_indexes(list(indexes))


def _in_driver(operation: Operation, namespace: str | None = None) -> Any:
    """An operation as the driver takes it. `namespace`: if it is for one of several collections."""
    match operation:
        case Insert(document):
            return InsertOne(document, namespace=namespace)
        case Update(where, change, upsert, many):
            return (UpdateMany if many else UpdateOne)(where, change, upsert=upsert, namespace=namespace)
        case Put(document):
            return ReplaceOne({"_id": document["_id"]}, document, upsert=True, namespace=namespace)
        case Delete(where):
            return DeleteMany(where, namespace=namespace)


def _written(result: Any) -> int:
    return int(result.inserted_count + result.matched_count + result.upserted_count)


def _pause(attempt: int) -> float:
    """Seconds before a transaction is tried again. By chance, so that two do not meet again and again."""
    return random.uniform(0, min(_LONGEST_PAUSE, 0.002 * 2**attempt))  # noqa: S311 (no secret)


def _projection(fields: Sequence[str] | None) -> dict[str, int] | None:
    return None if fields is None else dict.fromkeys(fields, 1)


def _pairs(sort: Mapping[str, int] | None) -> list[tuple[str, int]] | None:
    return None if sort is None else list(sort.items())
