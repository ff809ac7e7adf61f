"""The HTTP server's limits and error bodies."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bridge.http_api import bodies, server
from bridge.http_api.errors import answer, describe, guarded
from bridge.http_api.readiness import Readiness
from broker.domain.errors import StoreError, StoreUnavailableError
from tests.slots import Slots

Start = Callable[[Callable[[Request], Awaitable[Response]]], Awaitable[server.Server]]


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
async def start(slots: Slots) -> AsyncIterator[Start]:
    """Starts a server with one endpoint, for any method, at `/`."""
    running: list[server.Server] = []

    async def start(endpoint: Callable[[Request], Awaitable[Response]]) -> server.Server:
        app = Starlette(routes=[Route("/", guarded(endpoint), methods=["GET", "POST"])])
        running.append(await server.start(app, "127.0.0.1:0", [], slots))
        return running[-1]

    yield start
    for each in running:
        await each.stop()


async def hello(_request: Request) -> Response:
    return answer({"hello": 1})


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send pieces, each after the response to the one before. Returns all bytes received until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        for piece in pieces:
            writer.write(piece)
            if piece is not pieces[-1]:
                received += await reader.read(65536)
        return received + await reader.read()
    finally:
        writer.close()


async def test_who_does_not_finish_a_request_is_cut_off(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.1)
    port = (await start(hello)).port
    async with asyncio.timeout(4):  # less than a connection may be idle between requests
        assert await exchange(port) == b""
        assert await exchange(port, b"GET / HTTP/1.1\r\nHo") == b""
        whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        assert (await exchange(port, whole, b"GET / HT")).endswith(b'{"hello":1}')


async def test_a_body_that_does_not_come(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.1)

    async def login(request: Request) -> Response:
        return answer(await bodies.read(request, bodies.Login))

    port = (await start(login)).port
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    received = await exchange(port, head + b'{"user_id":')
    assert received.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused(start: Start, request_bytes: bytes) -> None:
    port = (await start(hello)).port
    assert (await exchange(port, request_bytes)).startswith(b"HTTP/1.1 400 ")


async def test_stopping_does_not_wait_for_ever(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_SECONDS", 0)
    called, never = asyncio.Event(), asyncio.Event()

    async def hang(_request: Request) -> Response:
        called.set()
        await never.wait()
        return answer({})

    running = await start(hang)
    asking = asyncio.create_task(exchange(running.port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    await called.wait()
    async with asyncio.timeout(5):
        await running.stop()
    asking.cancel()
    await asyncio.wait([asking])


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("secret"), 500, "internal"),
        (StoreError("secret"), 503, "unavailable"),
    ],
)
def test_failures_of_ours_tell_nothing(error: Exception, status: int, code: str) -> None:
    response = describe(error, "POST /api/login")
    assert response.status_code == status
    assert json.loads(response.body)["error"]["code"] == code
    assert b"secret" not in response.body
    assert (response.headers.get("retry-after") is not None) == (status == 503)


async def test_readiness_asks_each_store_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    release = asyncio.Event()

    async def hang() -> None:
        nonlocal asked
        asked += 1
        await release.wait()

    async def fail() -> None:
        raise StoreError("secret")

    async def full() -> None:
        raise StoreUnavailableError("the disk is full")

    async def work() -> None:
        return None

    readiness = Readiness({"one": hang, "two": fail, "three": work, "four": full})
    results = await asyncio.gather(*(readiness.failures() for _ in range(5)))
    assert results == [["one: no answer within 1 s", "two: failed", "four: the disk is full"]] * 5
    assert asked == 1
    release.set()
    assert len(await readiness.failures()) == 3, "what was found is valid for a moment"
    monkeypatch.setattr("bridge.http_api.readiness.FRESH_SECONDS", 0.0)
    assert await readiness.failures() == ["two: failed", "four: the disk is full"]


async def test_what_fails_after_the_answer_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()

    async def fail_late() -> None:
        await release.wait()
        raise StoreUnavailableError("the server is away")

    readiness = Readiness({"one": fail_late})
    assert await readiness.failures() == ["one: no answer within 1 s"]
    release.set()
    await asyncio.sleep(0)
    del readiness
    await asyncio.sleep(0)
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_connections_beyond_a_limit(
    start: Start, slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)  # counted from the time when it may be read
    slots.waits = [None, 0.5]
    port = (await start(hello)).port
    request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with suppress(ConnectionError):
        assert await exchange(port, request) == b""
    assert slots.used == 0
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert (await exchange(port, request)).endswith(b'{"hello":1}')
    assert loop.time() - before >= 0.5
    async with asyncio.timeout(4):
        await slots.empty.wait()
