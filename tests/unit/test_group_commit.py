"""Group commit: while one batch is committed, the next collects."""

import asyncio
from collections.abc import Iterable

from broker.publish.committer import GroupCommit
from tests.unit.committer_kit import (
    until,
)

# --- GroupCommit ----------------------------------------------------------------------------


async def test_while_one_batch_is_committed_the_next_collects() -> None:
    batches: list[list[int]] = []
    gate = asyncio.Event()

    async def commit(batch: list[int]) -> None:
        batches.append(batch)
        await gate.wait()

    commits = GroupCommit(commit, max_batch=4)
    commits.submit(0)
    await until(lambda: len(batches) == 1)
    for i in range(1, 11):
        commits.submit(i)
    assert (batches, len(commits)) == ([[0]], 10)
    gate.set()
    await commits.drain()
    assert batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert len(commits) == 0


class ByFirst:
    """Items are strings, whose owner is the first letter."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes

    def owner(self, item: str) -> str:
        return item[0]

    def size(self, items: Iterable[str]) -> int:
        return sum(map(len, items))


async def batches_of(items: Iterable[str], max_batch: int, max_bytes: int = 100) -> list[list[str]]:
    """The batches that follow the first item, which is committed while the others come."""
    batches: list[list[str]] = []

    async def commit(batch: list[str]) -> None:
        batches.append(batch)
        await asyncio.sleep(0)

    commits = GroupCommit(commit, max_batch, ByFirst(max_bytes))
    commits.submit("first")
    await until(lambda: len(batches) == 1)
    for item in items:
        commits.submit(item)
    await commits.drain()
    assert len(commits) == 0
    return batches[1:]


async def test_a_flood_leaves_room_for_others_in_the_next_batch() -> None:
    flood = [f"a{number}" for number in range(10_000)]
    batches = await batches_of([*flood, "b0", "c0", "b1"], 20)
    assert batches[0][:6] == ["a0", "b0", "c0", "a1", "b1", "a2"]
    assert {len(batch) for batch in batches[:-1]} == {20}
    # Items of one owner keep their order.
    assert [item for batch in batches for item in batch if item[0] == "a"] == flood


async def test_a_flood_makes_no_batch_long_that_others_wait_for() -> None:
    flood = [f"a{number}" for number in range(360)]
    batches = await batches_of([*flood, "b0"], 400, 10_000)
    assert [len(batch) for batch in batches] == [101, 100, 100, 60]
    assert [item for batch in batches for item in batch if item[0] == "a"] == flood
    # Of several owners it may be as long as it may.
    several = [f"{owner}{number}" for number in range(100) for owner in "abcd"]
    assert await batches_of(several, 400, 10_000) == [several]


async def test_a_batch_is_full_with_its_bytes() -> None:
    large = "a" * 60
    batches = await batches_of([large, large, large, "b0", "b1"], 20)
    assert batches == [[large, "b0", large], ["b1", large]]
    assert await batches_of(["a" * 1000, "b0"], 20) == [["a" * 1000], ["b0"]]


async def test_a_commit_that_raises_does_not_stop_the_next() -> None:
    batches: list[list[int]] = []

    async def commit(batch: list[int]) -> None:
        batches.append(batch)
        if len(batches) == 1:
            raise RuntimeError("a receiver's bug")

    commits = GroupCommit(commit, max_batch=1)
    commits.submit(1)
    commits.submit(2)
    await commits.drain()
    commits.submit(3)
    await commits.drain()
    assert batches == [[1], [2], [3]]


async def test_drain_waits_for_what_is_submitted_meanwhile() -> None:
    committed: list[int] = []

    async def commit(batch: list[int]) -> None:
        await asyncio.sleep(0)
        committed.extend(batch)
        if batch[0] < 5:
            commits.submit(batch[0] + 1)

    commits = GroupCommit(commit, max_batch=10)
    await commits.drain()  # nothing to wait for
    commits.submit(1)
    await commits.drain()
    assert committed == [1, 2, 3, 4, 5]
