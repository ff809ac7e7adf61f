"""Group commit, and the committer over a log in memory."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import pairwise

import msgspec
import pytest

from broker.domain.errors import DuplicateMessageError, Refusal, StoreError, StoreUnavailableError
from broker.domain.message import Content, Count, Draft, Stamped, draft, read_body
from broker.domain.topics import parse_topic
from broker.outage import Outage
from broker.publish.committer import Duplicate, GroupCommit, MessageCommitter, Outcome, Submission
from broker.publish.sequencer import Sequencer
from tests.unit.memory_log import MemoryLog

NOW = 1_764_000_000_000


class FixedClock:
    def now_ms(self) -> int:
        return NOW

    def growing_ms(self) -> int:
        return NOW


class Bench:
    """A committer, and the calls that followed each submission, as (call, name or seq)."""

    def __init__(self, max_batch: int = 1000, log: MemoryLog | None = None) -> None:
        self.log = log or MemoryLog()
        self.story: list[tuple[str, object]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.published: list[Stamped] = []
        self.outage = Outage()
        self.limited: Counter[str] = Counter()
        self.committer = MessageCommitter(
            self.log, Sequencer(1), FixedClock(), self._publish, max_batch, self.outage, 10_000, self.limited
        )

    def _publish(self, message: Stamped) -> None:
        self.published.append(message)
        self.story.append(("push", message.seq))

    def submit(self, name: str, draft: Draft, *, patient: bool = True) -> None:
        def done(outcome: Outcome) -> None:
            assert name not in self.outcomes, "told twice"
            self.outcomes[name] = outcome
            self.story.append(("done", name))

        self.committer.submit(Submission(draft, done, patient))

    def seqs(self) -> list[int | None]:
        return [o.seq if isinstance(o, Stamped | Duplicate) else None for o in self.outcomes.values()]


def group(
    text: str = "hi", client_msg_id: str | None = None, sender: str = "alice", to: str = "team"
) -> Draft:
    return draft(sender, parse_topic(f"groups/{to}"), _content(text, client_msg_id))


def private(
    text: str = "hi", client_msg_id: str | None = None, sender: str = "alice", to: str = "bob"
) -> Draft:
    return draft(sender, parse_topic(f"users/{to}/inbox"), _content(text, client_msg_id))


def _content(text: str, client_msg_id: str | None) -> Content:
    return Content(msgspec.Raw(msgspec.json.encode(text)), client_msg_id=client_msg_id)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until something holds; a test that never gets there is stopped."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


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


# --- the same message again -----------------------------------------------------------------


@pytest.mark.parametrize("max_batch", [1, 2, 100])
@pytest.mark.parametrize("make", [group, private])
async def test_the_same_again_is_acknowledged_and_not_stored(
    max_batch: int, make: Callable[..., Draft]
) -> None:
    bench = Bench(max_batch)
    bench.submit("first", make("hi", "c-1"))
    bench.submit("other", make("ho", "c-2"))
    bench.submit("again", make("hi", "c-1"))
    bench.submit("no id", make("hi"))
    bench.submit("no id again", make("hi"))
    bench.submit("and again", make("hi", "c-1"))
    await bench.committer.drain()
    first = bench.outcomes["first"]
    assert isinstance(first, Stamped)
    same = Duplicate(str(first.id), first.draft.conversation_id, first.seq)
    assert bench.outcomes["again"] == bench.outcomes["and again"] == same
    assert [m.seq for m in bench.published] == [1, 2, 3, 4]
    assert [bytes(read_body(m.body).content) for m in bench.published] == [b'"hi"', b'"ho"', b'"hi"', b'"hi"']
    assert len(bench.outcomes) == 6


@pytest.mark.parametrize("max_batch", [1, 100])
async def test_the_same_id_with_other_content_is_refused(max_batch: int) -> None:
    bench = Bench(max_batch)
    bench.submit("first", group("hi", "c-1"))
    bench.submit("other", group("ho", "c-1"))
    bench.submit("fine", group("ho", "c-2"))
    await bench.committer.drain()
    refusal = bench.outcomes["other"]
    assert isinstance(refusal, Refusal)
    assert refusal.code == "duplicate_conflict"
    assert isinstance(bench.outcomes["first"], Stamped)
    assert isinstance(bench.outcomes["fine"], Stamped)
    assert [m.seq for m in bench.published] == [1, 2]


async def test_the_same_id_elsewhere_is_another_message() -> None:
    bench = Bench()
    bench.submit("a", group("hi", "c-1"))
    bench.submit("other sender", group("hi", "c-1", sender="bob"))
    bench.submit("other group", group("hi", "c-1", to="crew"))
    bench.submit("private", private("hi", "c-1"))
    bench.submit("the other way", private("hi", "c-1", sender="bob", to="alice"))
    await bench.committer.drain()
    assert all(isinstance(outcome, Stamped) for outcome in bench.outcomes.values())


async def test_the_same_again_after_a_restart() -> None:
    log = MemoryLog()
    outcomes = []
    for _ in range(2):
        bench = Bench(log=log)
        bench.submit("a", private("hi", "c-1"))
        await bench.committer.drain()
        outcomes.append(bench.outcomes["a"])
    first, second = outcomes
    assert isinstance(first, Stamped)
    assert second == Duplicate(str(first.id), first.draft.conversation_id, first.seq)


async def test_a_failure_while_duplicates_are_sorted_out() -> None:
    bench = Bench()
    bench.submit("first", group("hi", "c-1"))
    await bench.committer.drain()
    bench.log.failures = [DuplicateMessageError("taken"), StoreError("disk full")]
    bench.submit("again", group("hi", "c-1"))
    bench.submit("new", group("new", "c-2"))
    await bench.committer.drain()
    assert isinstance(bench.outcomes["new"], StoreError)
    assert [m.seq for m in bench.published] == [1]
    bench.submit("later", group("later"))
    await bench.committer.drain()
    assert [m.seq for m in bench.published] == [1, 2]


@pytest.mark.parametrize("text", [b"1e999", b"[" * 900 + b"]" * 900])
async def test_content_that_is_hard_to_compare_hurts_nobody_else(text: bytes) -> None:
    content = Content(msgspec.Raw(text), client_msg_id="c-1")
    bench = Bench()
    odd = draft("eve", parse_topic("groups/team"), content)
    bench.submit("odd", odd)
    await bench.committer.drain()
    bench.submit("odd again", odd)
    bench.submit("new", group("new"))
    await bench.committer.drain()
    assert set(bench.outcomes) == {"odd", "odd again", "new"}
    assert [m.seq for m in bench.published] == [1, 2]


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


# --- other writers of the same logs ---------------------------------------------------------


class SharedLog(MemoryLog):
    """A log that another node writes, too: just when this one has asked its first question about it."""

    def __init__(self) -> None:
        super().__init__()
        self._other = Sequencer(2)
        self._is_asked = False

    async def _write(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            self._other.learn({"g:team": 0}, {"g:team": Count()})
            await self.append(self._other.stamp([group("of another node")], NOW, NOW))

    async def heads(self, logs: Sequence[str]) -> dict[str, int]:
        found = await super().heads(logs)
        await self._write()
        return found

    async def counts(self, conversations: Sequence[str]) -> dict[str, Count]:
        found = await super().counts(conversations)
        await self._write()
        return found


async def test_a_message_has_the_count_of_its_seq() -> None:
    """Although another node writes between the questions where the conversation ends and what it counts."""
    bench = Bench(log=SharedLog())
    bench.submit("own", group())
    await bench.committer.drain()
    assert [(message.seq, message.count) for message in bench.published] == [(2, Count(2, 2))]
