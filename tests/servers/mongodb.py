"""MongoDB: the run's server, or one of a test's own.

`MONGODB_URL` names a real one. Without it the tests use SecantusDB, one server that speaks MongoDB's protocol
and has its transactions, unique indexes and write conflicts, but no elections.
"""

import atexit
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from pymongo import MongoClient

from tests.servers.processes import HOST, Process, answers, find, folder_of, free_port, keep, shared

_PROGRAM = "secantusd-py"
_PACKAGE = "secantusdb (the extra `dev` of this project)"


def server_url() -> str:
    """The server of the run: mongodb://HOST:PORT."""
    return os.environ.get("MONGODB_URL") or shared("mongodb", _start_shared)


@asynccontextmanager
async def emptied_database() -> AsyncIterator[dict[str, object]]:
    """Options of the plugin for an empty database. A worker's tests use one after the other: to make the
    collections and indexes takes much longer than to empty them."""
    name = _name_of_worker()
    yield {"uri": server_url(), "database": name, "pool_min": 0}
    with MongoClient[dict[str, object]](server_url(), w="majority") as client:
        for collection in client[name].list_collection_names():
            if collection != "meta":
                client[name][collection].delete_many({})
        client[name]["meta"].delete_many({"_id": {"$ne": "schema"}})


@cache
def _name_of_worker() -> str:
    name = f"parley_test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}"
    if url := os.environ.get("MONGODB_URL"):
        atexit.register(_drop, url, name)  # that server outlives the run
    return name


def _drop(url: str, name: str) -> None:
    with MongoClient[dict[str, object]](url) as client:
        client.drop_database(name)


def _start_shared(folder: Path) -> str:
    data, port = folder_of(folder, "mongodb"), free_port()
    keep("mongodb", _command(data, port), data, lambda: answers(port))
    return _url(port)


def own(folder: Path, *options: str) -> tuple[Process, str]:
    """A server of a test's own, not started yet, and its URL. It syncs what it commits."""
    data, port = folder / "mongodb", free_port()
    data.mkdir(exist_ok=True)
    command = _command(data, port, ("--sync-on-commit", *options))
    return Process(command, folder / "mongodb.log", lambda: answers(port)), _url(port)


def _command(data: Path, port: int, options: Sequence[str] = ()) -> list[str]:
    program = find(_PROGRAM, _PACKAGE, [Path(sys.executable).parent])
    where = (f"--host={HOST}", f"--port={port}", f"--storage-path={data}")
    return [program, *where, "--log-level=ERROR", "--cache-size=128M", *options]


def _url(port: int) -> str:
    return f"mongodb://{HOST}:{port}"
