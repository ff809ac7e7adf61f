"""A session taken up again: what one connection leaves, the next one sends."""

import pytest

from broker.ports import QueuedMessage, Redelivery, SessionState
from broker.wire.packets import Ack, Publish, Type
from tests.unit.session_kit import INBOX, TEAM, Limits, Wire, connect, follow, kept, note, offer, read, sent

STATE = SessionState(
    filters={INBOX: 2, TEAM: 1},
    cursors={INBOX: 5, "g:team": 9},
    inflight=[Redelivery(1, INBOX, 6, 1), Redelivery(4, INBOX, 7, 2), Redelivery(2, "g:team", 9, 2, True)],
    received=[3, 8],
    queue=[
        QueuedMessage("sensors/1", b"sent", 1, False, 6),
        QueuedMessage("", b"", 2, False, 7, True),
        QueuedMessage("sensors/1", b"waits", 2, True),
    ],
)


def test_a_session_that_came_back_sends_what_was_in_its_window() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=10), STATE)
    assert wire.take() == [
        Ack(Type.PUBREL, 2),
        Publish("sensors/1", b"sent", 1, 6, dup=True),
        Ack(Type.PUBREL, 7),
        Publish("sensors/1", b"waits", 2, 3, retain=True),
    ]
    assert session.received == {3, 8}
    assert session.filters == STATE.filters
    tail = follow(session, position=5, qos=2)
    read(session, tail, 6)
    read(session, tail, 7, 8, qos=2)
    assert wire.take() == [sent(6, 1, 1, dup=True), sent(7, 2, 4, dup=True), sent(8, 2, 5)]
    session.puback(1)
    session.pubrec(4)
    assert tail.cursor == 7


def test_a_connection_that_ends_before_its_logs_are_followed_loses_nothing() -> None:
    session = connect(Wire(), Limits(max_inflight=10), STATE)
    left = kept(session)
    assert left.cursors == STATE.cursors
    assert left.filters == STATE.filters
    assert left.received == STATE.received
    assert {item.packet_id for item in left.inflight} >= {1, 4}
    assert {m.payload: m.retain for m in left.queue if m.payload} == {b"sent": False, b"waits": True}


def test_what_one_connection_leaves_the_next_takes_up() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=3, max_queued=5))
    session.filters = {INBOX: 2, "sensors/#": 2}
    session.received = {9}
    tail = follow(session, position=10, qos=2)
    offer(session, 11)
    offer(session, 12, qos=2)
    session.offer(note("n", 2), 2)
    session.offer(note("later"), 1)
    session.pubrec(3)
    assert kept(session) == SessionState(
        {INBOX: 2, "sensors/#": 2},
        {INBOX: 10},
        [Redelivery(1, INBOX, 11, 1), Redelivery(2, INBOX, 12, 2)],
        [9],
        [QueuedMessage("", b"", 2, False, 3, True), QueuedMessage("sensors/1", b"later", 1)],
    )
    assert tail.cursor == 10


def test_an_entry_that_is_released_is_passed_over() -> None:
    """4.3.3: the receiver has it; only PUBREL and PUBCOMP are left."""
    wire = Wire()
    state = SessionState(
        {}, {INBOX: 5}, [Redelivery(1, INBOX, 6, 1), Redelivery(2, INBOX, 7, 2, True)], [], []
    )
    session = connect(wire, state=state)
    tail = follow(session, position=5, qos=2)
    read(session, tail, 6)
    read(session, tail, 7, 8, qos=2)
    assert wire.take() == [Ack(Type.PUBREL, 2), sent(6, 1, 1, dup=True), sent(8, 2, 3)]
    session.puback(1)
    assert tail.cursor == 7


def test_a_packet_id_freed_early_is_not_used_for_two() -> None:
    """PUBCOMP comes before the reader reaches the released entry in the log."""
    wire = Wire()
    state = SessionState({}, {INBOX: 5}, [Redelivery(1, INBOX, 6, 2, True)], [], [])
    session = connect(wire, state=state)
    session.pubcomp(1)
    session.offer(note("new"), 1)
    tail = follow(session, position=5, qos=2)
    read(session, tail, 6, 7, qos=2)
    published = [packet for packet in wire.take() if isinstance(packet, Publish)]
    assert [packet.payload for packet in published] == [b"new", b"7"]
    assert len({packet.packet_id for packet in published}) == 2
    session.puback(published[0].packet_id)
    assert session.counts == (1, 0)


def test_the_window_holds_when_a_released_entry_is_done_early() -> None:
    state = SessionState({}, {INBOX: 5}, [Redelivery(1, INBOX, 6, 2, True)], [], [])
    session = connect(Wire(), Limits(max_inflight=2), state)
    session.pubcomp(1)
    assert session.room <= 2


@pytest.mark.parametrize("offset", [5, 6])
def test_rights_that_were_lost_free_their_packet_ids(offset: int) -> None:
    state = SessionState({}, {"g:team": 5}, [Redelivery(1, "g:team", offset, 1)], [], [])
    session = connect(Wire(), Limits(max_inflight=1), state)
    session.forget_lost()
    assert session.counts == (0, 0)
    assert session.room == 1


def test_an_entry_before_the_cursor_holds_no_place_in_the_window() -> None:
    """Unsubscribed with an entry unacknowledged, then subscribed again further on."""
    session = connect(Wire(), Limits(max_inflight=1))
    follow(session)
    offer(session, 1)
    session.drop_tail(INBOX)
    follow(session, position=10)
    wire = Wire()
    session = connect(wire, Limits(max_inflight=1), kept(session))
    tail = follow(session, position=10)
    session.forget_lost()
    read(session, tail, 11)
    assert [packet.payload for packet in wire.take() if isinstance(packet, Publish)] == [b"11"]


def test_a_qos_2_entry_that_is_done_is_never_sent_again() -> None:
    """An entry of QoS 1 before it is not acknowledged yet, so the cursor stands still."""
    session = connect(Wire())
    follow(session, qos=2)
    offer(session, 1)
    offer(session, 2, qos=2)
    session.pubrec(2)
    session.pubcomp(2)
    state = kept(session)
    wire = Wire()
    session = connect(wire, state=state)
    tail = follow(session, position=state.cursors[INBOX], qos=2)
    read(session, tail, 1)
    read(session, tail, 2, qos=2)
    assert [p.payload for p in wire.take() if isinstance(p, Publish)] == [b"1"]
