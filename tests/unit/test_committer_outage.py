"""While the store cannot commit, the committer holds what was published."""

import asyncio

import msgspec
import pytest

from broker.domain.errors import StoreUnavailableError
from broker.domain.message import Stamped
from tests.unit.committer_kit import (
    Bench,
    group,
    until,
)

# --- while the store cannot commit ----------------------------------------------------------

FULL = StoreUnavailableError("database or disk is full")


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.publish.committer._RETRY_SECONDS", 0.01)


async def told(bench: Bench, *names: str) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    for _ in iter(lambda: all(name in bench.outcomes for name in names), True):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quickly")
async def test_what_cannot_be_committed_now_is_committed_later_in_its_order() -> None:
    bench = Bench(max_batch=2)
    bench.log.failures = [FULL, FULL, None, FULL]
    names = [f"m{n}" for n in range(7)]
    for name in names[:5]:
        bench.submit(name, group(name))
    await until(lambda: bench.outage.is_on)
    assert not bench.story
    for name in names[5:]:
        bench.submit(name, group(name))
    await told(bench, *names)
    assert bench.seqs() == [1, 2, 3, 4, 5, 6, 7]
    assert [draft_text(stamped) for stamped in bench.published] == names
    assert not bench.outage.is_on
    bench.submit("later", group("later"))
    await told(bench, "later")


@pytest.mark.usefixtures("quickly")
async def test_an_outage_ends_with_the_first_commit_that_works(caplog: pytest.LogCaptureFixture) -> None:
    """However much is held: calls are not refused any more, and batches do not wait between one another."""
    bench = Bench(max_batch=1)
    bench.log.failures = [FULL]
    names = [f"m{n}" for n in range(9)]
    for name in names:
        bench.submit(name, group("x"))
    await told(bench, "m0")
    bench.submit("call", group("call"), patient=False)
    await told(bench, "call", *names)
    assert bench.seqs() == list(range(1, 11))
    assert len([line for line in caplog.messages if "commits fail" in line]) == 1


@pytest.mark.usefixtures("quickly")
async def test_who_cannot_wait_is_told_at_once() -> None:
    bench = Bench()
    bench.log.failures = [FULL] * 3
    bench.submit("call", group("call"), patient=False)
    bench.submit("publish", group("publish"))
    await told(bench, "call")
    assert bench.outage.is_on
    bench.submit("another call", group("another"), patient=False)
    assert bench.outcomes["another call"] == FULL
    await told(bench, "publish")
    assert bench.seqs() == [None, None, 1]


async def test_what_is_held_is_bounded() -> None:
    bench = Bench()
    bench.log.failures = [FULL] * 1000
    bench.submit("first", group("first"))
    await until(lambda: bench.outage.is_on)
    for n in range(100):
        bench.submit(f"m{n}", group("x"))
    refused = [name for name, outcome in bench.outcomes.items() if outcome == FULL]
    assert len(refused) == bench.limited["held_bytes"]
    assert refused[-1] == "m99"
    assert "m0" not in refused
    await bench.committer.drain()


async def test_a_node_that_stops_gives_up_what_is_held() -> None:
    bench = Bench()
    bench.log.failures = [FULL] * 1000
    bench.submit("one", group("one"))
    await until(lambda: bench.outage.is_on)
    bench.submit("two", group("two"))
    await bench.committer.drain()
    assert all(isinstance(outcome, StoreUnavailableError) for outcome in bench.outcomes.values())
    assert len(bench.outcomes) == 2


def draft_text(stamped: Stamped) -> object:
    return msgspec.json.decode(stamped.draft.content.content)
