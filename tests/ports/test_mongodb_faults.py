"""The MongoDB store when its server fails: one clear line, nothing lost, nothing twice."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pymongo import MongoClient

from broker.domain.errors import StoreError, StoreUnavailableError
from broker.domain.message import Stamped, read_body
from broker.ports import Enqueued, MessageLog, QueuedMessage, Saved, SessionKey, SessionState
from plugins.persistence.mongodb import client as driver
from tests.ports.conftest import Scribe
from tests.ports.mongodb_stores import MUCH, client, fresh, opened
from tests.servers import mongodb
from tests.servers.headless import headless
from tests.servers.processes import HOST, Process, free_port

QUICK = {"select_timeout_ms": 1000, "connect_timeout_ms": 1000}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """A server of the test's own, running."""
    folder = tmp_path / "server"
    folder.mkdir()
    process, url = mongodb.own(folder)
    process.start()
    yield process, url
    process.kill()


async def refused(tmp_path: Path, uri: str, **options: Any) -> str:
    """Why the stores cannot be opened."""
    with pytest.raises(StoreError) as raised:
        async with opened(tmp_path, uri, fresh(), **{**QUICK, **options}):
            pass
    line = str(raised.value)
    assert "\n" not in line
    assert len(line) < 300
    return line


# --- opening --------------------------------------------------------------------------------


async def test_an_unreachable_server(tmp_path: Path) -> None:
    address = f"{HOST}:{free_port()}"
    began = time.monotonic()
    line = await refused(tmp_path, f"mongodb://parley:secret@{address}/")
    assert time.monotonic() - began < 10
    assert f"mongodb {address}/" in line
    assert "cannot be reached" in line
    assert "secret" not in line


async def test_a_replica_set_without_a_primary(tmp_path: Path) -> None:
    async with headless() as url:
        line = await refused(tmp_path, url)
    assert line.endswith(": the replica set has no primary")


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://parley:se@cret@127.0.0.1:1/",
        "http://parley:secret@127.0.0.1:1/",
        "mongodb://parley:secret@127.0.0.1:x/",
        "mongodb://parley:secret@127.0.0.1:1/?authMechanism=none",
        "mongodb://parley:secret@127.0.0.1:1/?replicaSet=",
        "",
    ],
)
async def test_an_address_that_is_wrong(tmp_path: Path, uri: str) -> None:
    line = await refused(tmp_path, uri)
    assert "cret" not in line


async def test_a_wrong_password(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    first, url = mongodb.own(folder)
    first.start()
    try:
        with client(url) as connected:
            roles = [{"role": "root", "db": "admin"}]
            connected.admin.command("createUser", "parley", pwd="right", roles=roles)
    finally:
        first.kill()
    server, url = mongodb.own(folder, "--auth")
    server.start()
    try:
        address = url.removeprefix("mongodb://")
        for user in ("parley:wrong@", "nobody:wrong@", ""):
            line = await refused(tmp_path, f"mongodb://{user}{address}/?authSource=admin")
            assert "password is wrong" in line
            assert "wrong@" not in line
        right = f"mongodb://parley:right@{address}/?authSource=admin"
        async with opened(tmp_path, right, "parley") as stores:
            assert await stores.messages.last_id() == 0
    finally:
        server.kill()


# --- running --------------------------------------------------------------------------------


async def test_a_server_that_goes_and_comes_back(
    tmp_path: Path, scribe: Scribe, server: tuple[Process, str], caplog: pytest.LogCaptureFixture
) -> None:
    """What clients see of it does not name the server; the log does, once."""
    process, url = server
    async with opened(tmp_path, url, "parley", **QUICK) as stores:
        first, second = scribe.group("team", "a"), scribe.group("team", "b")
        await stores.messages.append([first])
        process.kill()
        with pytest.raises(StoreUnavailableError, match=r"^mongodb: cannot be reached$"):
            await stores.messages.append([second])
        with pytest.raises(StoreUnavailableError, match=r"^mongodb: cannot be reached$"):
            await stores.messages.read("g:team", 0, 10, MUCH)
        process.start()
        await until_it_works(stores.messages, second)
        entries = await stores.messages.read("g:team", 0, 10, MUCH)
        assert [entry.body for entry in entries] == [first.body, second.body]
    told = [record.message for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert sum("cannot be reached" in line for line in told) == 1
    assert sum("answers again" in line for line in told) == 1
    assert all(url.removeprefix("mongodb://") in line for line in told)


async def until_it_works(log: MessageLog, message: Stamped) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await log.append([message])
            except StoreUnavailableError:
                await asyncio.sleep(0.1)
            else:
                return


LOST = {"closeConnection": True}
NOT_CONFIRMED = {"writeConcernError": {"code": 64, "errmsg": "no majority in time"}}
FORGOTTEN = {"errorCode": 251, "errorLabels": ["TransientTransactionError"]}


async def test_commits_whose_outcome_is_not_known(
    tmp_path: Path, scribe: Scribe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is made once, whether the server has made it or not when it fails to say so."""
    monkeypatch.setattr(driver, "_BETWEEN_QUESTIONS", 0.05)
    folder = tmp_path / "server"
    folder.mkdir()
    process, url = mongodb.own(folder, "--enable-test-commands")
    process.start()
    phone = SessionKey("bob", "phone")
    try:
        async with opened(tmp_path, url, "parley", **QUICK, settle_timeout_ms=1000) as stores:
            await stores.states.apply([Saved(phone, SessionState({}, {}, [], [], []), 1)])
            cases = [(LOST, 1), (LOST, 3), (NOT_CONFIRMED, 2), (FORGOTTEN, 1)]
            with client(url) as connected:
                for number, (failure, times) in enumerate(cases, start=1):
                    for change in (
                        stores.messages.append([scribe.group("team")]),
                        stores.states.apply([Enqueued(phone, QueuedMessage("open/1", b"x", 1), 100)]),
                    ):
                        fail_commits(connected, failure, {"times": times})
                        await change
                    assert await stores.messages.heads(["g:team"]) == {"g:team": number}
                    loaded = await stores.states.load(phone)
                    assert loaded is not None
                    assert len(loaded.queue) == number
                fail_commits(connected, LOST, "alwaysOn")
                with pytest.raises(StoreError, match="cannot be asked whether a commit was made") as raised:
                    await stores.messages.append([scribe.group("team")])
                assert not isinstance(raised.value, StoreUnavailableError), "it must not be tried again"
                fail_commits(connected, LOST, "off")
    finally:
        process.kill()


def fail_commits(connected: "MongoClient[dict[str, Any]]", failure: dict[str, Any], mode: object) -> None:
    data = {"failCommands": ["commitTransaction"], **failure}
    connected.admin.command({"configureFailPoint": "failCommand", "mode": mode, "data": data})


class Writer:
    """Appends messages one after the other, as a node does: a batch that failed is stamped anew."""

    def __init__(self, log: MessageLog) -> None:
        self._log = log
        self.acknowledged: list[str] = []
        self._ids = 0

    async def write(self, count: int) -> None:
        while len(self.acknowledged) < count:
            text = f"m{len(self.acknowledged)}"
            try:
                await self._append(text)
            except StoreUnavailableError:
                await asyncio.sleep(0.05)
            else:
                self.acknowledged.append(text)

    async def _append(self, text: str) -> None:
        scribe = Scribe()
        scribe.heads = await self._log.heads(["p:alice:bob", "users/alice/inbox", "users/bob/inbox"])
        self._ids += 1
        await self._log.append([replace(scribe.private("alice", "bob", text), id=self._ids)])


async def kill_often(process: Process) -> None:
    """Kill the server again and again, and start it."""
    for round_ in range(6):
        await asyncio.sleep(0.15 + 0.037 * round_)
        await asyncio.to_thread(process.kill)
        await asyncio.to_thread(process.start)


async def test_a_server_that_is_killed_while_it_commits(tmp_path: Path, server: tuple[Process, str]) -> None:
    """Acknowledged is stored; what the server did not answer to is stored once or not at all."""
    process, url = server
    async with opened(tmp_path, url, "parley", **QUICK) as stores, asyncio.timeout(100):
        writer = Writer(stores.messages)
        async with asyncio.TaskGroup() as tasks:
            killing = tasks.create_task(kill_often(process))
            while not killing.done():
                await writer.write(len(writer.acknowledged) + 20)
        for name in ("p:alice:bob", "users/alice/inbox", "users/bob/inbox"):
            entries = await stores.messages.read(name, 0, 100_000, MUCH)
            assert [entry.offset for entry in entries] == list(range(1, len(entries) + 1))
            bodies = [read_body(entry.body) for entry in entries]
            assert [bytes(body.content).decode().strip('"') for body in bodies] == writer.acknowledged
            assert not any(body.withheld for body in bodies)
