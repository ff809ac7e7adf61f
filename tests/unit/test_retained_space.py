"""The room for retained messages."""

from collections import Counter
from collections.abc import Sequence
from itertools import permutations, product

import pytest

from broker.ports import Held, Retained
from broker.publish.retained_space import RetainedLimits, RetainedSpace

MUCH = RetainedLimits(1000, 100_000)


def space_of(
    messages: int, size: int, limited: Counter[str], of_user: RetainedLimits = MUCH
) -> RetainedSpace:
    return RetainedSpace(RetainedLimits(messages, size), of_user, limited)


def held(**sizes: int) -> dict[str, Held]:
    """Stored by an earlier version."""
    return {topic: Held("", size) for topic, size in sizes.items()}


def retain(space: RetainedSpace, topic: str, payload: bytes, owner: str = "alice") -> bool:
    """As the pipeline and the fanout do."""
    if space.has_room(topic, payload, owner):
        space.retained(Retained(topic, payload, 0, owner=owner))
        return True
    return False


def test_their_number() -> None:
    limited: Counter[str] = Counter()
    space = space_of(2, 1000, limited)
    space.load(held(a=2))
    assert retain(space, "b", b"1")
    assert not retain(space, "c", b"1")
    assert retain(space, "a", b"another")
    assert retain(space, "never", b"")
    assert not retain(space, "c", b"1")
    assert retain(space, "b", b"")
    assert retain(space, "c", b"1")
    assert limited == {"retained_messages": 2}


def test_their_bytes() -> None:
    limited: Counter[str] = Counter()
    space = space_of(100, 20, limited)
    assert retain(space, "a", b"x" * 9)
    assert retain(space, "é", b"x" * 8)
    assert not retain(space, "c", b"1")
    assert not retain(space, "a", b"x" * 10)
    assert retain(space, "a", b"x" * 7)
    assert retain(space, "c", b"1")
    assert not retain(space, "d", b"1")
    assert limited == {"retained_bytes": 3}


def test_a_store_that_was_filled_under_a_higher_limit_can_be_emptied() -> None:
    space = space_of(1, 10, Counter())
    space.load(held(a=100, b=100, c=100))
    assert not retain(space, "d", b"1")
    assert retain(space, "a", b"x" * 50)
    for topic in "abc":
        assert retain(space, topic, b"")
    assert retain(space, "d", b"1")


def test_presence_is_not_counted() -> None:
    space = space_of(1, 100, Counter())
    for number in range(10):
        space.retained(Retained(f"users/u{number}/presence", b"{}", 1))
    assert retain(space, "a", b"1")


def test_a_user_has_a_part_of_the_room() -> None:
    limited: Counter[str] = Counter()
    space = space_of(100, 1000, limited, RetainedLimits(2, 20))
    space.load({"old": Held("", 500), "a": Held("alice", 2)})
    assert retain(space, "b", b"1")
    assert not retain(space, "c", b"1")
    assert retain(space, "c", b"1", "bob"), "bob has room of his own"
    assert not retain(space, "c", b"2"), "it would be hers"
    assert retain(space, "a", b"x" * 17)
    assert not retain(space, "a", b"x" * 18)
    assert retain(space, "a", b"2", "bob")
    assert retain(space, "d", b"1"), "what bob has replaced is his"
    assert not retain(space, "e", b"1", "bob")
    assert retain(space, "a", b""), "anybody who may publish there may remove it"
    assert retain(space, "e", b"1", "bob")
    assert limited == {"retained_messages_per_user": 3, "retained_bytes_per_user": 1}
    for topic in ("b", "c", "d", "e"):
        assert retain(space, topic, b"")
    assert space._users == {}


def test_a_message_that_could_not_be_stored() -> None:
    space = space_of(100, 1000, Counter(), RetainedLimits(1, 20))
    assert retain(space, "a", b"1")
    change = space.begin("a")
    assert retain(space, "a", b"2", "bob")
    space.settle(change, stored=False)
    assert not retain(space, "b", b"1")
    change = space.begin("b")
    assert retain(space, "b", b"1", "bob")
    space.settle(change, stored=False)
    assert retain(space, "c", b"1", "bob")


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("stored", list(product((False, True), repeat=3)))
def test_several_changes_of_one_topic_on_their_way(order: Sequence[int], stored: Sequence[bool]) -> None:
    """In whatever order their outcomes come, the last that was stored remains."""
    space = space_of(100, 1000, Counter())
    assert retain(space, "a", b"x")
    changes = []
    for number in range(3):
        changes.append(space.begin("a"))
        assert retain(space, "a", b"x" * (number + 2))
    for number in order:
        space.settle(changes[number], stored=stored[number])
    last = max((number + 3 for number in range(3) if stored[number]), default=2)
    assert space._held == {"a": Held("alice", last)}
    assert space._changes == {}
