"""Relays bytes between gRPC's clients and its server, whatever they do. The server here is no gRPC."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import quote

import pytest

from bridge.grpc_api import relay as relaying
from bridge.grpc_api.guard import host_of
from bridge.grpc_api.listening import PrivateSocket, listen
from bridge.grpc_api.relay import Relay, name_of
from tests.slots import Slots

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECONDS = 10
MEGABYTE = 2**20


class Relayed:
    """A relay, the slots of its connections, and what connects to its server."""

    def __init__(self, relay: Relay, slots: Slots) -> None:
        self.relay = relay
        self.slots = slots
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.relay.port)
        self.writers.append(writer)
        return reader, writer


@asynccontextmanager
async def relayed(serve: Serve, waits: list[float | None] | None = None) -> AsyncIterator[Relayed]:
    inside, slots = PrivateSocket(), Slots()
    slots.waits = waits or []
    served: list[asyncio.Task[None]] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(serve_one(reader, writer)))

    server = await asyncio.start_unix_server(accept, inside.address.removeprefix("unix:"))
    inside.hide()
    relay = Relay(listen("127.0.0.1:0"), inside, slots)
    await relay.start()
    at = Relayed(relay, slots)
    try:
        yield at
    finally:
        for writer in at.writers:
            writer.close()
        relay.stop_accepting()
        await relay.close()
        server.close()
        await asyncio.wait_for(asyncio.gather(*served), SECONDS)
    assert not relay.fronts
    assert slots.used == 0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_bytes_arrive_as_they_were_sent_and_half_a_close_too() -> None:
    async with relayed(echo) as at:
        reader, writer = await at.connect()
        sent = bytes(range(256)) * 4 * 8192

        async def send() -> None:
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await asyncio.wait_for(reader.read(-1), SECONDS) == sent
        await sending
        writer.close()
        await asyncio.wait_for(at.slots.empty.wait(), SECONDS)


@pytest.mark.parametrize("wait", [0.0, 0.2])
async def test_what_comes_before_the_server_is_reached(wait: float) -> None:
    async with relayed(echo, [wait]) as at:
        reader, writer = await at.connect()
        for part in (b"first ", b"second ", b"third"):
            writer.write(part)
            await writer.drain()
        assert await asyncio.wait_for(reader.readexactly(18), SECONDS) == b"first second third"
        writer.close()


async def test_without_a_slot_there_is_no_connection() -> None:
    async with relayed(echo, [None]) as at:
        reader, _ = await at.connect()
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(1), SECONDS) == b""
        reader, writer = await at.connect()
        writer.write(b"x")
        assert await asyncio.wait_for(reader.read(1), SECONDS) == b"x"
        writer.close()


async def test_the_server_is_read_only_while_the_client_takes_it() -> None:
    """No more than the buffers of the relay and of the system is taken from it."""
    written = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.transport.set_write_buffer_limits(high=0)
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            written += 65536

    async with relayed(pour) as at:
        with socket.create_connection(("127.0.0.1", at.relay.port)) as client:
            client.setblocking(False)
            before = -1
            while written != before and written < 64 * MEGABYTE:  # until the server is held up
                before = written
                await asyncio.sleep(0.3)
            assert 0 < written < 32 * MEGABYTE
            got, wanted = 0, written + 4 * MEGABYTE
            while got < wanted:  # it goes on when the client reads
                got += len(await asyncio.get_running_loop().sock_recv(client, MEGABYTE))


async def test_the_client_is_read_only_while_the_server_takes_it() -> None:
    go_on, got = asyncio.Event(), 0

    async def take_later(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal got
        await go_on.wait()
        while data := await reader.read(65536):
            got += len(data)

    async with relayed(take_later) as at:
        _, writer = await at.connect()
        writer.transport.set_write_buffer_limits(high=0)
        sent = 0
        with suppress(asyncio.TimeoutError):
            while sent < 64 * MEGABYTE:
                writer.write(bytes(65536))
                sent += 65536
                await asyncio.wait_for(writer.drain(), 1)
        assert 0 < sent < 32 * MEGABYTE
        go_on.set()
        await asyncio.wait_for(writer.drain(), SECONDS)
        writer.close()
        await asyncio.wait_for(at.slots.empty.wait(), SECONDS)
    assert got == sent


async def test_an_end_that_takes_nothing_does_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_FLUSH_SECONDS", 0.3)

    async def say_much_and_go(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(32 * MEGABYTE))
        await asyncio.sleep(0.2)
        writer.transport.abort()

    async with relayed(say_much_and_go) as at:
        with socket.create_connection(("127.0.0.1", at.relay.port)):
            await asyncio.wait_for(at.slots.empty.wait(), SECONDS)


async def test_a_client_that_resets_its_connection_is_gone_at_the_server() -> None:
    gone = asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()
        writer.close()

    async with relayed(watch) as at:
        _, writer = await at.connect()
        writer.write(b"x")
        await writer.drain()
        writer.transport.abort()
        await asyncio.wait_for(gone.wait(), SECONDS)


async def test_the_server_learns_who_calls() -> None:
    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("peername"))
        writer.write_eof()

    async with relayed(tell) as at:
        reader, writer = await at.connect()
        name = (await asyncio.wait_for(reader.read(-1), SECONDS)).lstrip(b"\0").decode()
        assert name.endswith(f"/{name_of(*writer.get_extra_info('sockname'))}")
        assert host_of(f"unix-abstract:{quote(name)}") == "127.0.0.1"
        writer.close()


@pytest.mark.parametrize(
    ("host", "name", "seen"),
    [
        ("192.0.2.1", "ipv4:192.0.2.1:5", "192.0.2.1"),
        ("2001:db8::1", "ipv6:[2001:db8::1]:5", "2001:db8::1"),
        ("::ffff:192.0.2.1", "ipv4:192.0.2.1:5", "192.0.2.1"),
        ("fe80::1%eth0", "ipv6:[fe80::1%eth0]:5", "fe80::1%eth0"),
    ],
)
def test_names_of_clients(host: str, name: str, seen: str) -> None:
    assert name_of(host, 5) == name
    assert host_of(f"unix-abstract:parley/0123456789abcdef/{quote(name)}") == seen


@pytest.mark.parametrize("bind", ["nothing", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "192.0.2.1:0"])
def test_addresses_that_cannot_be_listened_on(bind: str) -> None:
    with pytest.raises(OSError, match=r"grpc\.bind: cannot listen on "):
        listen(bind)


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0", "localhost:0"])
def test_all_addresses(bind: str) -> None:
    sockets = listen(bind)
    (port,) = {sock.getsockname()[1] for sock in sockets}
    hosts = ["127.0.0.1"] + (["::1"] if socket.has_dualstack_ipv6() and "local" not in bind else [])
    for host in hosts:
        socket.create_connection((host, port), SECONDS).close()
    for sock in sockets:
        sock.close()
