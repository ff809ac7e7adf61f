"""Stores on MongoDB for tests of this store alone: opened by options, with what they need around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from pymongo import MongoClient

from broker.ports import StoreContext, Stores
from plugins.persistence.mongodb import MongoPersistencePlugin
from tests.servers import mongodb

MUCH = 1 << 30


def fresh() -> str:
    """The name of a database that there is none of."""
    return f"parley_test_{uuid4().hex}"


@asynccontextmanager
async def opened(tmp_path: Path, uri: str, database: str, **options: Any) -> AsyncIterator[Stores]:
    """The stores of one node, as its plugin opens them."""
    config = MongoPersistencePlugin.Config(uri, database, pool_min=0, **options)
    stores = await MongoPersistencePlugin.open_stores(config, StoreContext(tmp_path))
    try:
        yield stores
    finally:
        await stores.close()


@asynccontextmanager
async def database_of_its_own() -> AsyncIterator[str]:
    """The name of a database of the run's server, which is dropped at the end."""
    name = fresh()
    try:
        yield name
    finally:
        with client() as connected:
            connected.drop_database(name)


def client(uri: str | None = None) -> "MongoClient[dict[str, Any]]":
    """A client of the test's own, which looks at documents and changes them."""
    return MongoClient(uri or mongodb.server_url(), w="majority")
