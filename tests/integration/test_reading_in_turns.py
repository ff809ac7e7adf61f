"""How much of what a client sends is handled in one turn of the event loop, counted on a real node."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc.aio

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api import im_admin_pb2_grpc as services
from broker.amqtt_edge.listeners import read_listeners
from broker.config import load
from broker.metrics import Metrics
from broker.net.connection import Connection
from broker.net.turns import VISITS
from server.app import running_node
from server.assembly import InOneProcess
from tests.integration.node import HOST, ROOT
from tests.integration.raw import connect, packet, publish

PINGREQ, PINGRESP = packet(0xC0), packet(0xD0)
PACKETS = 256
READ_AHEAD = 16 * 1024


async def until(condition: Callable[[], object]) -> None:
    """Turns of the event loop until something holds."""
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


class Transport:
    """Keeps what is written, and knows how much waited in the connection when its reading resumed."""

    def __init__(self) -> None:
        self.written = b""
        self.is_paused = False
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def close(self) -> None:
        self.is_closed = True

    abort = close


class Bench:
    """A node in this process, and its users' tokens."""

    def __init__(self, hub: Any, tokens: dict[str, str], some_socket: socket.socket) -> None:
        self.hub = hub
        self._tokens = tokens
        self._stream = asyncio.BaseTransport({"socket": some_socket})

    async def login(self, user: str, name: str) -> tuple[Connection, Transport]:
        transport = Transport()
        connection = Connection(self.hub, transport, (HOST, 1), self._stream)
        connection.received(connect(name, user, self._tokens[user]))
        await until(lambda: transport.written)
        assert transport.written == b"\x20\2\0\0"
        transport.written = b""
        return connection, transport


@asynccontextmanager
async def node(
    directory: Path, *settings: str, users: Iterable[str] = ("alice", "bob")
) -> AsyncIterator[Bench]:
    ports = [f"{key}={HOST}:0" for key in ("listeners.default.bind", "listeners.ws.bind")]
    ports += [f"{key}.bind={HOST}:0" for key in ("grpc", "http")]
    config = load(ROOT / "config" / "broker.yaml", {}, [*ports, *settings], directory / "data")
    async with running_node(
        config, read_listeners(config), InOneProcess(), Metrics(), accept_new_store=False
    ) as running:
        token = (directory / "data" / "admin.token").read_text().strip()
        metadata = (("authorization", f"Bearer {token}"),)
        tokens = {}
        async with grpc.aio.insecure_channel(running.addresses["grpc"]) as channel:
            admin = services.AdminServiceStub(channel)
            for user in users:
                await admin.AddUser(pb.AddUserRequest(user_id=user), metadata=metadata)
                request = pb.IssueTokenRequest(user_id=user, ttl_seconds=3600)
                tokens[user] = (await admin.IssueToken(request, metadata=metadata)).token
        with socket.socket() as some_socket:
            yield Bench(running.joined.node._hub, tokens, some_socket)


async def test_packets_of_a_turn_are_bounded(tmp_path: Path) -> None:
    async with node(tmp_path) as bench:
        flood, flooded = await bench.login("alice", "a")
        other, answered = await bench.login("bob", "b")
        again, answered_again = await bench.login("alice", "a2")
        flood.received(PINGREQ * 5000)
        await asyncio.sleep(0)
        counts = [len(flooded.written) // 2]
        assert counts[0] <= PACKETS * (1 + VISITS)
        # Another connection of the same user waits for its turn; another user does not.
        again.received(PINGREQ)
        other.received(PINGREQ)
        assert other._intake._suspended == 0
        assert again._intake._suspended
        await until(lambda: counts.append(len(flooded.written) // 2) or counts[-1] == 5000)
        steps = [after - before for before, after in pairwise(counts)]
        assert max(steps) <= PACKETS * VISITS
        assert answered.written == answered_again.written == PINGRESP
        assert bench.hub.metrics.totals["turns_waited"] >= 5000 // PACKETS


async def test_large_packets_end_a_visit(tmp_path: Path) -> None:
    async with node(tmp_path, 'topics.open=["open/#"]') as bench:
        flood, transport = await bench.login("alice", "a")
        flood.received(publish("open/x", b"x" * 100_000))
        assert flood._intake._suspended  # the next one is handled in the next turn
        flood.received(publish("open/x", b"x" * 100_000))
        assert transport.is_paused
        await until(lambda: not flood._intake._suspended and not transport.is_paused)
        assert bench.hub.metrics.totals["published"] == 2


async def test_reading_goes_on_only_when_nothing_waits(tmp_path: Path) -> None:
    """A notice that is answered while others wait does not resume the reading."""
    async with node(tmp_path, "limits.publishes_per_second=1000") as bench:
        flood, transport = await bench.login("alice", "a")
        notice = publish("users/alice/presence", b"busy")
        held = 0
        for _ in range(10):
            await until(lambda: not transport.is_paused)
            flood.received(notice * 1000)
            held = max(held, flood._intake._decoder.buffered)
        assert held < READ_AHEAD + 2 * len(notice * 1000)


async def test_who_is_gone_changes_no_filters(tmp_path: Path) -> None:
    async with node(tmp_path, "limits.publishes_per_second=100000") as bench:
        flood, _ = await bench.login("alice", "a")
        asked = 0
        subscribe = bench.hub.subscriptions.subscribe

        async def counted(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            return await subscribe(*arguments)

        bench.hub.subscriptions.subscribe = counted
        flood.received(packet(0x82, b"\0\1\0\x12users/alice/events\1") * 500)
        flood.lost()
        await until(lambda: flood.closed)
        assert asked <= 1
