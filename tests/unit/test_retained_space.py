"""The room for retained messages."""

from collections import Counter

from broker.ports import Retained
from broker.publish.retained_space import RetainedSpace


def retain(space: RetainedSpace, topic: str, payload: bytes) -> bool:
    """As the pipeline and the fanout do."""
    if space.has_room(topic, payload):
        space.retained(Retained(topic, payload, 0))
        return True
    return False


def test_their_number() -> None:
    limited: Counter[str] = Counter()
    space = RetainedSpace(2, 1000, limited)
    space.load({"a": 2})
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
    space = RetainedSpace(100, 20, limited)
    assert retain(space, "a", b"x" * 9)
    assert retain(space, "é", b"x" * 8)
    assert not retain(space, "c", b"1")
    assert not retain(space, "a", b"x" * 10)
    assert retain(space, "a", b"x" * 7)
    assert retain(space, "c", b"1")
    assert not retain(space, "d", b"1")
    assert limited == {"retained_bytes": 3}


def test_a_store_that_was_filled_under_a_higher_limit_can_be_emptied() -> None:
    space = RetainedSpace(1, 10, Counter())
    space.load({"a": 100, "b": 100, "c": 100})
    assert not retain(space, "d", b"1")
    assert retain(space, "a", b"x" * 50)
    for topic in "abc":
        assert retain(space, topic, b"")
    assert retain(space, "d", b"1")


def test_presence_is_not_counted() -> None:
    space = RetainedSpace(1, 100, Counter())
    for number in range(10):
        space.retained(Retained(f"users/u{number}/presence", b"{}", 1))
    assert retain(space, "a", b"1")
