"""The SQL directory on a server that cannot be used: one clear line at the start, later it recovers."""

import time
from collections.abc import Iterator
from types import ModuleType
from urllib.parse import urlsplit, urlunsplit

import psutil
import pytest

from broker.domain.errors import StoreError, StoreUnavailableError
from plugins.persistence.sql_directory import Pool, SqlDirectory, open_directory
from tests.ports.conftest import SERVERS
from tests.ports.directories import Clock, hash_password
from tests.servers.processes import HOST, Process, free_port, own_folder


@pytest.fixture(params=list(SERVERS))
def kind(request: pytest.FixtureRequest) -> ModuleType:
    return SERVERS[request.param]


def changed(url: str, **parts: object) -> str:
    """The URL with another user, password, port or database."""
    old = urlsplit(url)
    now = {
        "username": old.username,
        "password": old.password or "",
        "port": old.port,
        "path": old.path,
    } | parts
    place = f"{now['username']}:{now['password']}@{HOST}:{now['port']}"
    return urlunsplit(old._replace(netloc=place, path=str(now["path"])))


async def refusal(url: str) -> str:
    """The one line that says why it cannot be opened."""
    with pytest.raises(StoreError) as raised:
        await open_directory(url, hash_password, Clock().now_ms, Pool(connect_timeout=2))
    said = str(raised.value)
    assert "\n" not in said
    assert "secret" not in said
    assert len(said) < 300
    return said


async def test_what_is_wrong_at_the_start_is_said(kind: ModuleType) -> None:
    async with kind.new_database() as url:
        assert "onnect" in await refusal(changed(url, port=free_port(), password="secret"))
        wrong = await refusal(changed(url, username="nobody-here", password="secret"))
        assert "Access denied" in wrong or "authentication failed" in wrong
        assert "no_such_database" in await refusal(changed(url, path="/no_such_database"))


@pytest.mark.parametrize("url", ["oracle://host/db", "directory.db", "mysql+pymysql://a:secret@host:port/db"])
async def test_urls_that_it_cannot_use(url: str) -> None:
    assert (await refusal(url)).startswith("directory: ")


@pytest.fixture
def server(kind: ModuleType) -> Iterator[tuple[Process, str]]:
    with own_folder() as folder:
        process, url = kind.own(folder)
        process.start()
        yield process, url
        process.kill()


async def fails(directory: SqlDirectory) -> None:
    with pytest.raises(StoreUnavailableError, match="the database server fails"):
        await directory.account("alice")
    with pytest.raises(StoreUnavailableError, match="the database server fails"):
        await directory.set_disabled("alice", True)


async def recovers(directory: SqlDirectory) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            assert await directory.account("alice") is not None
            await directory.set_disabled("alice", True)
        except StoreUnavailableError:
            assert time.monotonic() < deadline
        else:
            return


async def test_a_server_that_fails_and_comes_back(kind: ModuleType, server: tuple[Process, str]) -> None:
    process, url = server
    pool = Pool(connect_timeout=2, timeout=2)
    directory = await open_directory(await kind.create(url), hash_password, Clock().now_ms, pool)
    try:
        await directory.add_account("alice", None, "user")
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        for each in processes:
            each.suspend()
        await fails(directory)
        for each in processes:
            each.resume()
        await recovers(directory)
        process.kill()
        await fails(directory)
        process.start()
        await recovers(directory)
    finally:
        await directory.close()
