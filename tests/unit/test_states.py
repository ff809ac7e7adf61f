"""Group commit of state changes while the store cannot commit."""

import asyncio
from collections.abc import Sequence

import pytest

from broker.domain.errors import StoreError, StoreUnavailableError
from broker.metrics import Metrics
from broker.ports import Applied, Retained, StateChange
from broker.states import States
from tests.outside.memory_store import Contents, MemoryStateStore, Opened

FULL = StoreUnavailableError("database or disk is full")


class FullStore(MemoryStateStore):
    """A store whose next commits fail."""

    def __init__(self, failures: int) -> None:
        super().__init__(Opened(Contents()))
        self.failures = failures

    async def apply(self, changes: Sequence[StateChange]) -> Applied:
        if self.failures:
            self.failures -= 1
            raise FULL
        return await super().apply(changes)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.states._RETRY_SECONDS", 0.01)


def retained(text: str) -> Retained:
    return Retained("open/a", text.encode(), 1)


async def begun(states: States) -> None:
    for _ in range(100):
        if states.outage.is_on:
            return
        await asyncio.sleep(0)
    raise AssertionError("no outage")


async def test_patient_changes_wait_and_keep_their_order() -> None:
    store = FullStore(failures=3)
    states = States(store, Metrics())
    first = asyncio.ensure_future(states.save([retained("first")], patient=True))
    with pytest.raises(StoreUnavailableError):
        await states.save([retained("impatient")])
    assert states.outage.is_on
    assert states.outage.reason == str(FULL)
    second = asyncio.ensure_future(states.save([retained("second")], patient=True))
    async with asyncio.timeout(10):
        await asyncio.gather(first, second)
    assert not states.outage.is_on
    assert (await store.retained_on(["open/a"]))["open/a"].payload == b"second"


async def test_later_changes_come_after_those_that_wait() -> None:
    store = FullStore(failures=1)
    states = States(store, Metrics())
    first = asyncio.ensure_future(states.save([retained("first")], patient=True))
    await begun(states)
    await states.save([retained("later")])
    assert first.done()
    assert (await store.retained_on(["open/a"]))["open/a"].payload == b"later"


async def test_a_node_that_stops_gives_up_what_waits() -> None:
    states = States(FullStore(failures=1000), Metrics())
    waiting = asyncio.ensure_future(states.save([retained("first")], patient=True))
    await begun(states)
    await states.drain()
    with pytest.raises(StoreError):
        await waiting
