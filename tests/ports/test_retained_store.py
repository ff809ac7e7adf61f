"""The retained messages of every `StateStore` (broker.ports)."""

from typing import TYPE_CHECKING

import pytest

from broker.domain.topics import matches
from broker.ports import (
    Held,
    Retained,
)

if TYPE_CHECKING:
    from tests.ports.conftest import OpenedStores


# --- retained messages ----------------------------------------------------------------------

TOPICS = sorted(
    [
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "a/é",
        "a!",
        "a0",
        "ab",
        "b",
        "/",
        "/a",
        "$SYS/x",
        "a/\U0001f389",
        "a/\uffff/z",
        "z/b",
    ]
)


async def retain(stores: "OpenedStores", topics: list[str]) -> None:
    await stores.states.apply([Retained(topic, topic.encode(), 1) for topic in reversed(topics)])


@pytest.mark.parametrize(
    "topic_filter",
    [
        *TOPICS,
        "#",
        "+",
        "a/#",
        "a/+",
        "+/b",
        "+/+",
        "/#",
        "/+",
        "$SYS/#",
        "+/b/#",
        "a/+/c",
        "a/b/#",
        "x",
        "x/#",
        "a/+/+",
    ],
)
async def test_retained_messages_that_match(stores: "OpenedStores", topic_filter: str) -> None:
    await retain(stores, TOPICS)
    wanted = [Retained(t, t.encode(), 1) for t in TOPICS if matches(topic_filter, t)]
    assert await stores.states.retained(topic_filter, "", 100) == wanted
    await stores.reopen()
    assert await stores.states.retained(topic_filter, "", 100) == wanted


async def test_retained_topics_of_the_last_code_point(stores: "OpenedStores") -> None:
    topics = ["a/\U0010ffff", "a/\U0010ffff/b", "\U0010ffff"]
    await retain(stores, topics)
    for topic_filter in ("a/+", "a/#", "#", "a/\U0010ffff", "+"):
        found = await stores.states.retained(topic_filter, "", 100)
        assert [r.topic for r in found] == sorted(t for t in topics if matches(topic_filter, t)), topic_filter


@pytest.mark.parametrize("topic_filter", ["#", "a/#", "+/+"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_retained_messages_page_by_page(stores: "OpenedStores", topic_filter: str, limit: int) -> None:
    await retain(stores, TOPICS)
    after, found = "", []
    while page := await stores.states.retained(topic_filter, after, limit):
        assert len(page) <= limit
        assert len(found) < len(TOPICS), "a page again"
        found += [message.topic for message in page]
        after = page[-1].topic
    assert found == [t for t in TOPICS if matches(topic_filter, t)]


async def test_a_page_may_start_after_a_topic_that_is_gone(stores: "OpenedStores") -> None:
    await retain(stores, ["a/1", "a/3"])
    assert [r.topic for r in await stores.states.retained("a/+", "a/2", 10)] == ["a/3"]
    assert [r.topic for r in await stores.states.retained("a/#", "0", 10)] == ["a/1", "a/3"]
    assert await stores.states.retained("a/+", "b", 10) == []


async def test_the_last_retained_message_counts_and_an_empty_one_removes(stores: "OpenedStores") -> None:
    await stores.states.apply([Retained("a", b"1", 0), Retained("b", b"\x00\xff", 2, live=True)])
    await stores.states.apply([Retained("a", b"2", 1, live=True)])
    both = [Retained("a", b"2", 1, live=True), Retained("b", b"\x00\xff", 2, live=True)]
    assert await stores.states.retained("#", "", 10) == both
    await stores.states.apply([Retained("a", b"", 1), Retained("never", b"", 0)])
    assert await stores.states.retained("#", "", 10) == both[1:]


async def test_retained_on_topics(stores: "OpenedStores") -> None:
    await retain(stores, TOPICS)
    await stores.states.apply([Retained("x/y", b"\x00\xff", 2, live=True)])
    asked = ["a/b", "x/y", "a/\U0001f389", "unknown", "a/+", "A/b", "a/b"]
    wanted = [Retained("a/b", b"a/b", 1), Retained("x/y", b"\x00\xff", 2, live=True)]
    wanted.append(Retained("a/\U0001f389", "a/\U0001f389".encode(), 1))
    assert await stores.states.retained_on(asked) == {r.topic: r for r in wanted}
    assert await stores.states.retained_on([]) == {}


async def test_retained_on_many_topics(stores: "OpenedStores") -> None:
    topics = [f'users/u{i}/"presence"' for i in range(3000)]
    await retain(stores, topics)
    found = await stores.states.retained_on([*topics, *(f"users/u{i}" for i in range(3000))])
    assert sorted(found) == sorted(topics)


async def test_whose_the_retained_messages_are(stores: "OpenedStores") -> None:
    assert await stores.states.held() == {}
    await stores.states.apply(
        [
            Retained("a", b"\x00\xff", 1, owner="alice"),
            Retained("é/b", b"x" * 100_000, 0, owner="alice"),
            Retained("users", b"1", 0),
            Retained("users0", b"1", 0),
            Retained("users/alice/presence", b"{}", 1),
            Retained("gone", b"1", 0),
        ]
    )
    await stores.states.apply([Retained("gone", b"", 0), Retained("a", b"1", 0, owner="bob")])
    held = {
        "a": Held("bob", 2),
        "é/b": Held("alice", 100_004),
        "users": Held("", 6),
        "users0": Held("", 7),
    }
    assert await stores.states.held() == held
    await stores.reopen()
    assert await stores.states.held() == held


async def test_live_ones(stores: "OpenedStores") -> None:
    await stores.states.apply(
        [Retained("a", b"1", 1, live=True), Retained("b", b"1", 1), Retained("c", b"1", 1, live=True)]
    )
    assert sorted(await stores.states.live_retained()) == ["a", "c"]
    await stores.states.apply(
        [Retained("a", b"0", 1), Retained("b", b"1", 1, live=True), Retained("c", b"", 1, live=True)]
    )
    await stores.reopen()
    assert await stores.states.live_retained() == ["b"]
