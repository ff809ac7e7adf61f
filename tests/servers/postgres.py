"""PostgreSQL: the run's server, or one of a test's own."""

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from tests.servers.processes import HOST, Process, as_user, find, folder_of, free_port, keep, shared

_USER = "postgres"
_PASSWORD = "of-tests"
_PACKAGE = "postgresql"
_FAST = ("-F", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
"""Tests lose nothing when the machine fails. What a product must never do."""


def server_url() -> str:
    """A user who may create databases: postgresql://USER:PASSWORD@HOST:PORT/postgres."""
    return os.environ.get("POSTGRES_URL") or shared("postgres", _start_shared)


async def create(server: str | None = None) -> str:
    """The URL of a new, empty database."""
    server = server or server_url()
    name = f"parley_test_{uuid4().hex}"
    await run(server, f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def drop(database: str, server: str | None = None) -> None:
    name = urlsplit(database).path.strip("/")
    await run(server or server_url(), f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@asynccontextmanager
async def new_database(server: str | None = None) -> AsyncIterator[str]:
    """The URL of an empty database, which is dropped at the end."""
    database = await create(server)
    try:
        yield database
    finally:
        await drop(database, server)


async def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements; the rows of the last one."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return [tuple(row) for row in await connection.fetch(statements[-1])]
    finally:
        await connection.close()


def _start_shared(folder: Path) -> str:
    data, port = _prepared(folder), free_port()
    keep("postgres", _command(data, port), data, lambda: _is_ready(port), _USER)
    return _url(port)


def own(folder: Path) -> tuple[Process, str]:
    """A server of a test's own, not started yet, and its URL. It syncs what it commits."""
    data, port = _prepared(folder), free_port()
    command = _command(data, port, fast=())
    return Process(command, folder / "postgres.log", lambda: _is_ready(port), _USER), _url(port)


def _prepared(folder: Path) -> Path:
    data = folder_of(folder, "postgres", _USER)
    password = data / "password"
    password.write_text(_PASSWORD)
    password.chmod(0o644)
    install = (
        *(_find("initdb"), "--pgdata", str(data / "data"), "--no-sync", "--auth-host=md5"),
        *("--no-locale", "--encoding=UTF8", "--username=postgres", f"--pwfile={password}"),
    )
    done = subprocess.run(install, capture_output=True, text=True, check=False, **as_user(_USER))
    assert done.returncode == 0, done.stdout + done.stderr
    return data


def _command(data: Path, port: int, fast: tuple[str, ...] = _FAST) -> list[str]:
    return [
        *(_find("postgres"), "-D", str(data / "data"), "-p", str(port)),
        *("-c", f"listen_addresses={HOST}", "-c", "unix_socket_directories="),
        *("-c", "max_connections=200", *fast),
    ]


def _find(program: str) -> str:
    """Debian keeps the programs of each version in a folder of its own. The newest is taken."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    newest_first = sorted(versions, key=lambda folder: int(folder.parent.name), reverse=True)
    return find(program, _PACKAGE, newest_first)


def _url(port: int) -> str:
    return f"postgresql://postgres:{_PASSWORD}@{HOST}:{port}/postgres"


def _is_ready(port: int) -> bool:
    probe = (_find("pg_isready"), "-q", "-h", HOST, "-p", str(port))
    return subprocess.run(probe, check=False).returncode == 0
