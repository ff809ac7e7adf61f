"""Which packet ids are handed out, over connections and crashes (broker.session.packet_ids)."""

import pytest

from broker.ports import PacketIds
from broker.session.packet_ids import IdSource


def source(saved: PacketIds | None = None, *, step: int = 4, reserves: bool = True) -> IdSource:
    ids = IdSource(persistent=True)
    ids.step = step
    if saved is not None:
        ids.restore(saved)
    if reserves:
        reserve(ids)
    return ids


def reserve(ids: IdSource, *held: int) -> PacketIds:
    """Reserve a range; returns what is saved."""
    saved = ids.reserve((), held)
    assert saved is not None
    ids.reserved(saved.reserved)
    return saved


def take(ids: IdSource, count: int, *taken: int, qos: int = 2) -> list[int]:
    return [ids.take(taken, qos) for _ in range(count)]


def test_nothing_of_qos_2_goes_before_a_range_is_reserved() -> None:
    ids = source(reserves=False)
    assert take(ids, 1) == [0]
    assert ids.is_wanted
    assert take(ids, 2, qos=1) == [1, 2], "the client holds no packet id of QoS 1"
    saved = ids.reserve((), ())
    assert saved == PacketIds(2, 6)
    assert ids.reserve((), ()) is None, "it is on its way"
    assert take(ids, 1) == [0]
    ids.reserved(6)
    assert not ids.is_wanted
    assert take(ids, 5) == [3, 4, 5, 6, 0]


def test_a_session_that_ends_with_its_connection_needs_no_range() -> None:
    assert take(IdSource(persistent=False), 3) == [1, 2, 3]


def test_a_failed_reservation_is_made_again() -> None:
    ids = source(reserves=False)
    take(ids, 1)
    assert ids.reserve((), ()) is not None
    ids.reserved(None)
    assert take(ids, 1) == [0]
    assert ids.is_low
    assert ids.reserve((), ()) == PacketIds(0, 4)


def test_after_a_connection_that_ended_ids_go_on() -> None:
    ids = source()
    assert take(ids, 2) == [1, 2]
    saved = ids.snapshot(at_end=True)
    assert saved == PacketIds(2, 2)
    assert take(source(saved), 2) == [3, 4]


def test_after_a_crash_what_may_have_been_handed_out_is_not_handed_out_again() -> None:
    saved = reserve(source(reserves=False))
    ids = source(saved)
    assert take(ids, 1) == [5]
    assert ids.snapshot(at_end=True).doubtful == ((1, 4),)


def test_what_the_client_held_when_the_range_was_reserved_is_doubtful_too() -> None:
    ids = source(step=2)
    take(ids, 2)
    saved = reserve(ids, 2)
    assert saved == PacketIds(2, 4, ((2, 2),))
    assert source(saved).snapshot(at_end=True).doubtful == ((2, 2), (3, 4))


def test_a_session_that_is_saved_while_connected_keeps_the_range_that_was_asked_for() -> None:
    ids = source()
    take(ids, 1)
    assert ids.reserve((), ()) is not None  # on its way: it is committed before what is saved now
    assert ids.snapshot(at_end=False) == PacketIds(1, 5)


def test_ids_begin_again_after_65535_without_those_in_use_or_doubtful() -> None:
    ids = source(PacketIds(65533, 65533, ((1, 3), (5, 5))), step=10)
    assert take(ids, 4, 4) == [65534, 65535, 6, 7]


def test_a_doubtful_range_may_go_over_the_end() -> None:
    ids = source(PacketIds(65533, 65537))
    assert ids.snapshot(at_end=True).doubtful == ((65534, 65535), (1, 2))
    assert take(ids, 2) == [3, 4]


def test_a_range_is_reserved_with_other_changes_when_half_is_used() -> None:
    ids = source()
    take(ids, 2)
    assert not ids.is_low
    take(ids, 1)
    assert ids.is_low
    one = source(reserves=False)
    take(one, 100, qos=1)
    assert not one.is_low, "it has nothing of QoS 2"


def test_a_hundred_crashes_use_no_packet_id_twice() -> None:
    saved = PacketIds()
    used: list[int] = []
    for _ in range(110):
        ids = IdSource(persistent=True)
        ids.restore(saved)
        saved = reserve(ids)
        used += take(ids, 100)
    assert len(set(used)) == len(used)
    assert 0 not in used


@pytest.mark.timeout(20)
def test_crashes_never_use_up_all_packet_ids() -> None:
    saved = PacketIds()
    for _ in range(400):
        ids = IdSource(persistent=True)
        ids.restore(saved)
        saved = reserve(ids)
        assert all(take(ids, 3))


def test_there_is_a_free_one_whatever_is_doubtful() -> None:
    """With a large `max_inflight`, all ids without doubt may be taken: the earliest doubts are given up."""
    doubtful = ((1, 20_000), (20_001, 40_000), (40_001, 60_000))
    ids = source(PacketIds(60_000, 60_000, doubtful), reserves=False)
    taken = range(60_001, 65_536)
    assert ids.take(taken, 1) == 1
    assert ids.take(taken, 1) == 2
    ids.reserved(1 << 20)
    assert ids.take(taken, 2) == 3
    saved = ids.reserve(taken, ())
    assert saved is not None
    assert saved.doubtful == ((40_001, 60_000),)
