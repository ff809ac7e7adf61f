"""MariaDB: the run's server, or one of a test's own."""

import os
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import uuid4

import aiomysql

from tests.servers.processes import HOST, Process, as_user, find, folder_of, free_port, keep, shared

_USER = "mysql"
_PACKAGE = "mariadb-server"

_FAST = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--innodb-fast-shutdown=2",
)
"""Tests lose nothing when the machine fails. What a product must never do."""


def server_url() -> str:
    """A user who may create databases, without a database: mysql://USER:PASSWORD@HOST:PORT."""
    return os.environ.get("MYSQL_URL") or shared("mariadb", _start_shared)


async def create(server: str | None = None) -> str:
    """The URL of a new, empty database."""
    server = server or server_url()
    name = f"parley_test_{uuid4().hex}"
    await run(server, f"CREATE DATABASE {name}")
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def drop(database: str, server: str | None = None) -> None:
    name = urlsplit(database).path.strip("/")
    await run(server or server_url(), f"DROP DATABASE IF EXISTS {name}")


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
    parts = urlsplit(url)
    connection = await aiomysql.connect(
        host=parts.hostname or HOST,
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        db=parts.path.strip("/") or None,
        autocommit=True,
    )
    try:
        async with connection.cursor() as cursor:
            for statement in statements:
                await cursor.execute(statement)
            return list(await cursor.fetchall())
    finally:
        await connection.ensure_closed()


def _start_shared(folder: Path) -> str:
    data, port = _prepared(folder), free_port()
    keep("mariadb", _command(data, port), data, lambda: _greets(port), _USER)
    return _url(port)


def own(folder: Path) -> tuple[Process, str]:
    """A server of a test's own, not started yet, and its URL. It syncs what it commits."""
    data, port = _prepared(folder), free_port()
    command = _command(data, port, fast=())
    return Process(command, folder / "mariadb.log", lambda: _greets(port), _USER), _url(port)


def _prepared(folder: Path) -> Path:
    data = folder_of(folder, "mariadb", _USER)
    install = (
        *(find("mariadb-install-db", _PACKAGE), "--no-defaults", f"--datadir={data}"),
        *("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"),
    )
    done = subprocess.run(install, capture_output=True, text=True, check=False, **as_user(_USER))
    assert done.returncode == 0, done.stdout + done.stderr
    return data


def _command(data: Path, port: int, fast: tuple[str, ...] = _FAST) -> list[str]:
    return [
        *(find("mariadbd", _PACKAGE), "--no-defaults", f"--datadir={data}", f"--port={port}"),
        *(f"--bind-address={HOST}", f"--socket={data / 'socket'}", f"--pid-file={data / 'pid'}"),
        *("--skip-name-resolve", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"),
        *("--max-connections=1000", *fast),
    ]


def _url(port: int) -> str:
    return f"mysql://root@{HOST}:{port}"


def _greets(port: int) -> bool:
    """The server speaks first, once it takes connections."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            return bool(connection.recv(1))
    except OSError:
        return False
