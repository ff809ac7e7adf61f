"""Events of users: one log, whatever reads it; errors are summed up."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.router import Router
from broker.domain.errors import StoreError, StoreUnavailableError
from broker.metrics import Metrics
from broker.ports import KeptEvent
from broker.publish.events import Events
from broker.wire.encoder import Outgoing
from tests.outside.memory_store import Contents, MemoryMessageLog, Opened
from tests.unit.backplane_kit import Bus, BusTurns
from tests.unit.memory_log import MemoryLog

NOTHING: Any = None
TOPIC = "users/bob/events"


class Reader:
    """Keeps what it is offered: entries with their offsets, other messages without."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, dict[str, Any]]] = []
        self.live: list[dict[str, Any]] = []

    def offer(self, outgoing: Outgoing, _qos: int) -> None:
        self.live.append(json.loads(outgoing.payload))

    def offer_entry(self, _topic: str, offset: int, outgoing: Outgoing) -> None:
        self.entries.append((offset, json.loads(outgoing.payload)))


class Parts:
    """Events over a log in memory, with a reader of bob's. `timers` are due when a test says so."""

    def __init__(self, kept: int = 3) -> None:
        self.metrics = Metrics()
        self.log = MemoryLog()
        router: Router[Any] = Router()
        self.reader = Reader()
        router.add(TOPIC, self.reader, 1)
        fanout = Fanout(router, AwaySessions(NOTHING, [], 1, 1 << 20), NOTHING, self.metrics)
        self.timers: list[Callable[[], None]] = []
        self.events = Events(self.log, fanout, self.metrics, kept, lambda _, due: self.timers.append(due))

    async def stored(self) -> list[tuple[int, Any]]:
        entries = await self.log.read(TOPIC, 0, 100, 1 << 20)
        return [(entry.offset, json.loads(entry.body)["n"]) for entry in entries]


async def test_kept_events_are_entries_of_a_bounded_log() -> None:
    parts = Parts()
    for n in range(1, 6):
        await parts.events.keep(["bob", "carol"], {"event": "group", "n": n})
    assert await parts.stored() == [(3, 3), (4, 4), (5, 5)]
    assert parts.reader.entries == [(n, {"offset": n, "event": "group", "n": n}) for n in range(1, 6)]
    assert parts.reader.live == []


async def test_other_events_are_for_who_is_connected() -> None:
    parts = Parts()
    parts.events.tell("bob", {"event": "receipt", "n": 1})
    assert parts.reader.live == [{"event": "receipt", "n": 1}]
    assert await parts.stored() == []


async def test_places_that_are_taken_are_asked_for_anew() -> None:
    parts = Parts()
    await parts.events.keep(["bob"], {"event": "group", "n": 1})
    await parts.log.append_events([KeptEvent(TOPIC, 2, b'{"n":2}')], 3)  # another writer
    await parts.events.keep(["bob"], {"event": "group", "n": 3})
    assert await parts.stored() == [(1, 1), (2, 2), (3, 3)]


async def test_an_event_that_cannot_be_stored_is_counted() -> None:
    parts = Parts()
    parts.log.failures = [StoreError("the disk is full")]
    await parts.events.keep(["bob"], {"event": "group", "n": 1})
    assert parts.metrics.dropped["events_not_stored"] == 1
    await parts.events.keep(["bob"], {"event": "group", "n": 2})
    assert await parts.stored() == [(1, 2)]


async def test_events_wait_in_their_order_while_the_store_cannot_commit() -> None:
    parts = Parts(kept=10)
    parts.log.failures = [StoreUnavailableError("the disk is full") for _ in range(3)]
    for n in (1, 2):  # whoever causes them does not wait
        await parts.events.keep(["bob"], {"event": "group", "n": n})
    (due,) = parts.timers
    due()  # the disk is still full
    await parts.events.keep(["bob"], {"event": "group", "n": 3})
    assert await parts.stored() == []
    parts.timers[1]()
    await parts.events.keep(["bob"], {"event": "group", "n": 4})
    assert await parts.stored() == [(n, n) for n in (1, 2, 3, 4)]
    assert [offset for offset, _ in parts.reader.entries] == [1, 2, 3, 4]
    assert not parts.metrics.dropped


async def test_events_that_wait_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.publish.events._MOST_WAITING", 2)
    parts = Parts()
    parts.log.failures = [StoreUnavailableError("the disk is full") for _ in range(4)]
    for n in range(1, 5):
        await parts.events.keep(["bob"], {"event": "group", "n": n})
    assert parts.metrics.dropped["events_waiting"] == 2
    await parts.events.drain()  # a last attempt
    await parts.events.drain()
    assert await parts.stored() == []
    assert parts.metrics.dropped["events_not_stored"] == 2
    parts.timers[0]()  # there is nothing left to do
    parts.log.failures.clear()
    await parts.events.keep(["bob"], {"event": "group", "n": 5})
    await parts.events.drain()
    assert await parts.stored() == [(1, 5)]


async def test_errors_beyond_ten_a_second_are_summed_up() -> None:
    parts = Parts()
    for n in range(25):
        parts.events.error("bob", {"code": "not_member", "n": n})
    assert [event["n"] for event in parts.reader.live] == list(range(10))
    (due,) = parts.timers
    due()
    assert parts.reader.live[-1] == {
        "event": "error",
        "code": "more",
        "count": 15,
        "detail": "15 more refusals within a second",
    }
    assert parts.metrics.dropped["error_events"] == 15
    parts.events.error("bob", {"code": "not_member", "n": 25})
    assert parts.reader.live[-1]["n"] == 25
    assert len(parts.timers) == 2
    parts.timers[1]()
    assert parts.reader.live[-1]["n"] == 25


async def test_events_of_several_nodes_are_one_log() -> None:
    bus, contents, metrics = Bus(), Contents(), Metrics()
    fanout = Fanout(Router(), AwaySessions(NOTHING, [], 1, 1 << 20), NOTHING, metrics)
    nodes = [
        Events(MemoryMessageLog(Opened(contents)), fanout, metrics, 1000, NOTHING, BusTurns(bus, name))
        for name in ("one", "two", "three")
    ]
    keeping = [
        node.keep(["bob", f"u-{number % 7}"], {"event": "group", "n": number})
        for number in range(50)
        for node in nodes
    ]
    async with asyncio.timeout(10):
        await asyncio.gather(*keeping)
    entries = await MemoryMessageLog(Opened(contents)).read(TOPIC, 0, 1000, 1 << 20)
    assert [entry.offset for entry in entries] == list(range(1, 151))
    assert metrics.dropped["events_not_stored"] == 0
    assert bus.holders == {}
