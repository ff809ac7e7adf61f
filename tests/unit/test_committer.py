"""The committer over a log in memory: what it acknowledges and pushes, in which order."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise

import pytest

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Stamped
from broker.outage import Outage
from broker.publish.committer import MessageCommitter, Outcome, Submission
from broker.publish.sequencer import Sequencer
from tests.unit.committer_kit import (
    Bench,
    FixedClock,
    group,
    private,
    until,
)
from tests.unit.memory_log import MemoryLog

# --- order ----------------------------------------------------------------------------------


async def test_acknowledged_and_pushed_in_the_order_submitted() -> None:
    bench = Bench(max_batch=2)
    for name in "abcde":
        bench.submit(name, group(name))
    await bench.committer.drain()
    assert bench.seqs() == [1, 2, 3, 4, 5]
    done, push = [("done", name) for name in "abcde"], [("push", seq) for seq in range(1, 6)]
    assert [step for step in bench.story if step[0] == "done"] == done
    assert [step for step in bench.story if step[0] == "push"] == push
    for name, seq in zip("abcde", range(1, 6), strict=True):  # acknowledged first, then pushed
        assert bench.story.index(("done", name)) < bench.story.index(("push", seq))
    assert [len(batch) for batch in bench.log.batches] == [2, 2, 1]


async def test_nobody_hears_of_a_message_that_is_not_committed_yet() -> None:
    bench = Bench()
    bench.log.gate.clear()
    bench.submit("a", group())
    await until(lambda: bench.log.running == 1)
    for name in "bcd":
        bench.submit(name, group(name))
    assert bench.story == []
    assert len(bench.committer) == 3
    bench.log.gate.set()
    await bench.committer.drain()
    assert [len(batch) for batch in bench.log.batches] == [1, 3]
    assert bench.seqs() == [1, 2, 3, 4]


async def test_places_in_all_logs_of_a_private_message() -> None:
    bench = Bench()
    bench.submit("1", private(sender="alice", to="bob"))
    bench.submit("2", private(sender="bob", to="alice"))
    bench.submit("3", private(sender="carol", to="bob"))
    bench.submit("4", private(sender="bob", to="bob"))
    await bench.committer.drain()
    assert [(m.draft.conversation_id, m.seq, m.offsets) for m in bench.published] == [
        ("p:alice:bob", 1, (1, 1)),  # of bob, of alice
        ("p:alice:bob", 2, (2, 2)),  # of alice, of bob
        ("p:bob:carol", 1, (3, 1)),  # of bob, of carol
        ("p:bob:bob", 1, (4,)),
    ]


async def test_counting_goes_on_where_the_log_ends() -> None:
    log = MemoryLog()
    for expected in (1, 2, 3):
        bench = Bench(log=log)  # a new process: nothing is known of the heads
        bench.submit("a", private())
        await bench.committer.drain()
        assert bench.published[0].seq == expected
        assert bench.published[0].offsets == (expected, expected)


async def test_heads_are_asked_for_once() -> None:
    bench = Bench()
    for name in "abc":
        bench.submit(name, private(name))
        await bench.committer.drain()
    assert sorted(bench.log.heads_asked) == ["p:alice:bob", "users/alice/inbox", "users/bob/inbox"]


async def test_more_logs_than_heads_are_kept() -> None:
    bench = Bench()
    sequencer = Sequencer(1, capacity=3)
    committer = MessageCommitter(
        bench.log, sequencer, FixedClock(), bench.published.append, 10, Outage(), 10_000, Counter()
    )
    for i in range(40):
        committer.submit(Submission(private(to=f"u{i % 5}"), lambda _outcome: None))
        await committer.drain()
    assert [m.seq for m in bench.published] == [i // 5 + 1 for i in range(40)]
    assert [m.offsets[1] for m in bench.published] == list(range(1, 41))
    assert bench.log.heads_asked.count("users/alice/inbox") > 1


# --- failures -------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [StoreError("disk full"), OSError("gone"), RuntimeError("bug")])
async def test_a_failed_commit_acknowledges_nobody_and_leaves_no_gap(failure: Exception) -> None:
    bench = Bench(max_batch=2)
    bench.log.failures = [None, failure, None]
    for name in "abcdef":
        bench.submit(name, private(name))
    await bench.committer.drain()
    assert bench.seqs() == [1, 2, None, None, 3, 4]
    assert isinstance(bench.outcomes["c"], StoreError)
    assert isinstance(bench.outcomes["d"], StoreError)
    assert [m.seq for m in bench.published] == [1, 2, 3, 4]
    assert [m.offsets for m in bench.published] == [(n, n) for n in (1, 2, 3, 4)]


async def test_a_store_that_cannot_tell_its_heads() -> None:
    bench = Bench()

    async def fail(_logs: Sequence[str]) -> dict[str, int]:
        raise StoreError("closed")

    heads: Callable[[Sequence[str]], Awaitable[dict[str, int]]] = bench.log.heads
    bench.log.heads = fail  # type: ignore[method-assign, assignment]
    bench.submit("a", group())
    await bench.committer.drain()
    bench.log.heads = heads  # type: ignore[method-assign, assignment]
    bench.submit("b", group())
    await bench.committer.drain()
    assert isinstance(bench.outcomes["a"], StoreError)
    assert bench.seqs() == [None, 1]


async def test_places_that_somebody_else_took() -> None:
    """The heads that this node knows are out of date: it reads them again."""
    log = MemoryLog()
    mine, theirs = Bench(log=log), Bench(log=log)
    mine.submit("a", private("a"))
    await mine.committer.drain()
    theirs.submit("b", private("b", sender="bob", to="alice"))
    theirs.submit("c", private("c", sender="carol", to="bob"))
    await theirs.committer.drain()
    mine.submit("d", private("d"))
    mine.submit("e", private("e"))
    await mine.committer.drain()
    assert [(m.seq, m.offsets) for m in mine.published] == [(1, (1, 1)), (3, (4, 3)), (4, (5, 4))]
    assert len(await log.read("users/bob/inbox", 0, 100, 1 << 20)) == 5


async def test_places_that_are_taken_again_and_again() -> None:
    bench = Bench()
    bench.log.failures = [DuplicateMessageError("taken") for _ in range(4)]
    bench.submit("a", group("a", "c-1"))
    bench.submit("b", group("b"))
    await bench.committer.drain()
    bench.submit("c", group("c"))
    await bench.committer.drain()
    assert isinstance(bench.outcomes["a"], StoreError)
    assert isinstance(bench.outcomes["b"], StoreError)
    assert bench.seqs() == [None, None, 1]


async def test_one_receiver_that_raises_takes_nothing_from_the_others() -> None:
    bench = Bench()

    def broken(_outcome: Outcome) -> None:
        raise RuntimeError("a receiver's bug")

    bench.submit("a", group("a"))
    bench.committer.submit(Submission(group("b"), broken))
    bench.submit("c", group("c"))
    await bench.committer.drain()
    assert bench.seqs() == [1, 3]
    assert [m.seq for m in bench.published] == [1, 2, 3]


# --- in turns -------------------------------------------------------------------------------


async def test_one_among_ten_thousand_is_in_the_next_batch() -> None:
    bench = Bench()
    for number in range(10_000):
        bench.submit(f"a{number}", group(sender="mallory"))
    bench.submit("b", group(sender="bob", to="others"))
    await bench.committer.drain()
    assert len(bench.outcomes) == 10_001
    assert list(bench.outcomes).index("b") < 2
    seqs = [message.seq for message in bench.published if message.draft.sender == "mallory"]
    assert seqs == list(range(1, 10_001))


async def test_while_very_many_are_pushed_the_next_batch_is_committed() -> None:
    log, pushed = MemoryLog(), [0]
    story: list[str] = []

    def push(message: Stamped) -> None:
        pushed[0] += 1000  # each has a thousand readers
        story.append("push")

    committer = MessageCommitter(
        log,
        Sequencer(1),
        FixedClock(),
        push,
        1000,
        Outage(),
        10_000,
        Counter(),
        delivered=lambda: pushed[0],
    )
    for _ in range(200):
        committer.submit(Submission(group(), lambda _: None))
    await until(lambda: len(story) > 0)
    committer.submit(Submission(group(sender="bob", to="others"), lambda _: story.append("done")))
    await committer.drain()
    assert story.count("push") == 201
    assert story.index("done") < 100
    assert story[-1] == "push"


async def test_pushes_of_a_turn_are_bounded() -> None:
    readers = 190
    pushed = [0]
    busy: list[bool] = []

    def push(_: Stamped) -> None:
        pushed[0] += readers

    committer = MessageCommitter(
        MemoryLog(),
        Sequencer(1),
        FixedClock(),
        push,
        1000,
        Outage(),
        10_000,
        Counter(),
        delivered=lambda: pushed[0],
        busy=busy.append,
    )
    for _ in range(1000):
        committer.submit(Submission(group(), lambda _: None))
    counts = [0]
    while counts[-1] < 1000 * readers:
        await asyncio.sleep(0)
        counts.append(pushed[0])
    await committer.drain()
    assert max(after - before for before, after in pairwise(counts)) < 2000
    assert (busy[:2], busy[-1]) == ([True, False], False)
    assert busy.count(True) == busy.count(False)
