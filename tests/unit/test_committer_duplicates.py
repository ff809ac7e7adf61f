"""The same message again is acknowledged and not stored."""

from collections.abc import Callable

import msgspec
import pytest

from broker.domain.errors import DuplicateMessageError, Refusal, StoreError
from broker.domain.message import Content, Draft, Stamped, draft, read_body
from broker.domain.topics import parse_topic
from broker.publish.committer import Duplicate
from tests.unit.committer_kit import (
    Bench,
    group,
    private,
)
from tests.unit.memory_log import MemoryLog

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
