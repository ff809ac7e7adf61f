"""What happens when the other side of the bridge is gone (`broker.ports.bridge`)."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from broker.domain.errors import StoreError
from broker.metrics import Metrics
from broker.ports import Arrival, BrokerPort, PresenceChange
from broker.publish.for_services import ForServices
from tests.integration.remote_node import End, RemoteBroker, RemoteServices

NOTHING: Any = None


class Watched:
    """A broker that can be watched."""

    async def watch(self, _topic: str, _grown: Callable[[], None]) -> Callable[[], None]:
        return lambda: None


async def line() -> tuple[End, asyncio.StreamWriter]:
    """One end of the connection, and the writer whose closing cuts it."""
    here, there = socket.socketpair()
    end = End(*await asyncio.open_connection(sock=here), BrokerPort)
    end.offer(NOTHING)
    reader, writer = await asyncio.open_connection(sock=there)
    End(reader, writer, BrokerPort).offer(Watched())
    return end, writer


async def test_a_broker_that_is_gone() -> None:
    end, writer = await line()
    broker = RemoteBroker(end)
    grown = asyncio.Event()
    async with asyncio.timeout(10):
        await broker.watch("groups/team", grown.set)
        writer.close()
        await grown.wait()  # something may have been missed
        for call in (
            broker.publish("alice", []),
            broker.append([]),
            broker.devices(["alice"]),
            broker.connections("", "", 1),
            broker.kick("alice"),
            broker.watch("groups/team", grown.set),
            broker.stats(),
        ):
            with pytest.raises(StoreError):
                await call
        await broker.emit(["alice"], {"event": "profile"})


async def test_services_that_are_gone() -> None:
    end, writer = await line()
    writer.close()
    waiting = ForServices(2, 100, Metrics())
    waiting.serve(RemoteServices(end))
    replied: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    assert waiting.call("alice", "users.get", b"{}", replied.set_result) is None
    waiting.arrived(Arrival("alice", 0, 1))
    waiting.presence_changed(PresenceChange("alice", b"{}"))
    async with asyncio.timeout(10):
        assert b"unavailable" in await replied
        await waiting.close()


async def test_services_that_do_not_answer_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.publish.for_services._CLOSE_SECONDS", 0.05)
    monkeypatch.setattr("broker.publish.for_services._MOST_WAITING", 10)
    metrics = Metrics()

    class Silent:
        async def arrived(self, _batch: object) -> None:
            await asyncio.Event().wait()

    silent: Any = Silent()
    waiting = ForServices(2, 100, metrics)
    waiting.serve(silent)
    waiting.arrived(Arrival("alice", 0, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for offset in range(30):
        waiting.arrived(Arrival("alice", offset, offset + 1))
    assert metrics.dropped["arrivals_waiting"] == 20
    async with asyncio.timeout(10):
        await waiting.close()
