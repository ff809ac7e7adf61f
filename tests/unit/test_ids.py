"""User ids and message ids."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.ids import EPOCH_MS, Snowflakes, is_id

NOW = EPOCH_MS + 1_000_000


@pytest.mark.parametrize("text", ["a", "alice", "A-1_b.c", ".", "..", "-", "0" * 64])
def test_is_id(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text", ["", "0" * 65, "a b", "a/b", "a+", "#", "a\n", "é", "\u0660", "a\0", "a:b", "$a"]
)
def test_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_an_id_is_made_of_its_parts() -> None:
    message_id = Snowflakes(node=5).next(NOW)
    assert message_id >> 22 == NOW - EPOCH_MS
    assert message_id >> 12 & 0x3FF == 5
    assert message_id & 0xFFF == 0
    assert Snowflakes.created_ms(message_id) == NOW


def test_many_in_one_millisecond() -> None:
    source = Snowflakes(node=1)
    ids = [source.next(NOW) for _ in range(3 * 4096)]
    assert ids == sorted(set(ids))
    assert {Snowflakes.created_ms(i) for i in ids} == {NOW, NOW + 1, NOW + 2}
    assert Snowflakes.created_ms(ids[4095]) == NOW
    assert Snowflakes.created_ms(ids[4096]) == NOW + 1


def test_the_clock_steps_back() -> None:
    source = Snowflakes(node=1)
    before = source.next(NOW)
    after = source.next(NOW - 60_000)
    assert after > before
    assert Snowflakes.created_ms(after) == NOW


def test_the_wall_clock_catches_up_with_ids_that_ran_ahead() -> None:
    source = Snowflakes(node=1)
    ahead = [source.next(NOW) for _ in range(5000)][-1]
    for now in (NOW + 1, NOW + 2):
        following = source.next(now)
        assert following > ahead
        ahead = following
    assert Snowflakes.created_ms(ahead) == NOW + 2


@given(st.lists(st.integers(-5, 5), max_size=200))
def test_ids_grow_whatever_the_clock_does(steps: list[int]) -> None:
    source = Snowflakes(node=7)
    now, last = NOW, -1
    for step in steps:
        now += step
        message_id = source.next(now)
        assert message_id > last
        assert message_id >> 12 & 0x3FF == 7
        last = message_id


def test_nodes_never_give_the_same() -> None:
    one, other = Snowflakes(node=0), Snowflakes(node=1023)
    assert not {one.next(NOW) for _ in range(5000)} & {other.next(NOW) for _ in range(5000)}


@pytest.mark.parametrize("node", [-1, 1024])
def test_a_node_number_out_of_range(node: int) -> None:
    with pytest.raises(ValueError, match=str(node)):
        Snowflakes(node)
