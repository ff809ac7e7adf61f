"""Session and Tail: the flows of QoS 0, 1 and 2, windows and cursors."""

from collections.abc import Callable

import pytest

from broker.session.session import Session
from broker.session.tail import Tail
from broker.wire.packets import Ack, Packet, Type
from tests.unit.session_kit import (
    INBOX,
    TEAM,
    Limits,
    Wire,
    connect,
    feed,
    follow,
    kept,
    offer,
    open_tail,
    read,
    sent,
)

# --- the flows of chapter 4.3 ---------------------------------------------------------------


@pytest.mark.parametrize(("published", "granted"), [(p, g) for p in range(3) for g in range(3)])
def test_an_entry_goes_with_the_lower_qos(published: int, granted: int) -> None:
    wire = Wire()
    session = connect(wire)
    tail = follow(session, qos=granted)
    offer(session, 1, qos=published)
    qos = min(published, granted)
    assert wire.take() == [sent(1, qos, 1 if qos else 0)]
    assert tail.position == 1
    assert tail.cursor == (0 if qos else 1)
    assert session.counts == (1 if qos else 0, 0)


def _puback(session: Session) -> None:
    session.puback(1)


def _pubrec(session: Session) -> None:
    session.pubrec(1)


def _pubcomp(session: Session) -> None:
    session.pubcomp(1)


PUBREL_1 = Ack(Type.PUBREL, 1)


@pytest.mark.parametrize(
    ("qos", "answers", "replies", "inflight", "cursor"),
    [
        (1, [], [], 1, 0),
        (1, [_puback], [], 0, 1),
        (1, [_puback, _puback], [], 0, 1),
        (1, [_pubcomp], [], 1, 0),
        (2, [_pubrec], [PUBREL_1], 1, None),
        (2, [_pubrec, _pubrec], [PUBREL_1, PUBREL_1], 1, None),
        (2, [_pubrec, _pubcomp], [PUBREL_1], 0, 1),
        (2, [_pubrec, _pubcomp, _pubcomp], [PUBREL_1], 0, 1),
        (2, [_pubrec, _pubcomp, _pubrec], [PUBREL_1, PUBREL_1], 0, 1),
        (2, [_puback], [], 1, 0),
        (2, [_pubcomp], [], 1, 0),
        (2, [_pubrec, _puback], [PUBREL_1], 1, None),
    ],
)
def test_acknowledgements(
    qos: int,
    answers: list[Callable[[Session], None]],
    replies: list[Packet],
    inflight: int,
    cursor: int | None,
) -> None:
    """Where the cursor stands between PUBREC and PUBCOMP is for the tests of crashes to say."""
    wire = Wire()
    session = connect(wire)
    tail = follow(session, qos=2)
    offer(session, 1, qos=qos)
    wire.take()
    for answer in answers:
        answer(session)
    assert wire.take() == replies
    assert session.counts == (inflight, 0)
    if cursor is not None:
        assert tail.cursor == cursor
        assert session.logs.to_save == ({INBOX: 1} if cursor else {})


def test_acknowledgements_of_nothing() -> None:
    wire = Wire()
    session = connect(wire)
    session.puback(5)
    session.pubcomp(5)
    assert wire.take() == []
    session.pubrec(5)
    assert wire.take() == [Ack(Type.PUBREL, 5)]
    assert session.counts == (0, 0)


def test_cursors_of_a_clean_session_are_told_too() -> None:
    """They are not saved, but the senders of the entries get delivered receipts."""
    wire = Wire()
    session = connect(wire, persistent=False)
    follow(session)
    offer(session, 1)
    session.puback(1)
    assert session.logs.to_save == {INBOX: 1}
    assert wire.told() == ["moved"]


def test_the_watcher_is_told_once_until_cursors_are_taken() -> None:
    wire = Wire()
    session = connect(wire)
    follow(session)
    offer(session, 1, 2, 3)
    session.puback(1)
    session.puback(2)
    assert wire.told() == ["moved"]
    session.logs.saved()
    session.puback(3)
    assert wire.told() == ["moved"]
    assert session.logs.to_save == {INBOX: 3}


def test_acknowledgements_out_of_order() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=5))
    tail = follow(session)
    offer(session, 1, 2, 3, 4, 5)
    cursors = []
    for packet_id in (3, 2, 5, 1, 4):
        session.puback(packet_id)
        cursors.append(tail.cursor)
    assert cursors == [0, 0, 0, 3, 5]


@pytest.mark.parametrize("acknowledged", [[], [1], [2], [3, 1], [1, 2, 3]])
def test_a_snapshot_lists_what_was_not_acknowledged(acknowledged: list[int]) -> None:
    """Its cursor is the last entry sent, so that no acknowledged entry is sent again."""
    session = connect(Wire())
    follow(session)
    offer(session, 1, 2, 3)
    for packet_id in acknowledged:
        session.puback(packet_id)
    state = kept(session)
    assert state.cursors == {INBOX: 3}
    assert [item.offset for item in state.inflight] == [n for n in (1, 2, 3) if n not in acknowledged]


def test_logs_have_cursors_of_their_own() -> None:
    session = connect(Wire())
    inbox, team = follow(session), follow(session, TEAM, position=7)
    offer(session, 1)
    offer(session, 8, 9, topic=TEAM)
    session.puback(2)
    assert (inbox.cursor, team.cursor) == (0, 8)


# --- leaving the live stream and returning --------------------------------------------------


def test_the_window_is_never_exceeded() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=3))
    tail = follow(session)
    offer(session, 1, 2, 3, 4, 5)
    assert wire.take() == [sent(1, 1, 1), sent(2, 1, 2), sent(3, 1, 3)]
    assert session.window.room == 0
    assert not tail.live
    assert session.behind == {INBOX: tail}
    assert (tail.position, tail.head) == (3, 5)
    assert "lagging" in wire.told()


def test_a_tail_that_is_behind_gets_no_pushes_until_it_has_caught_up() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=1))
    tail = follow(session)
    offer(session, 1, 2)
    session.puback(1)
    offer(session, 3)  # there is room, but 2 comes first
    assert wire.take() == [sent(1, 1, 1)]
    assert tail.head == 3
    read(session, tail, 2)
    session.puback(2)
    read(session, tail, 3)
    session.puback(3)
    session.logs.caught_up(tail)
    offer(session, 4)
    assert wire.take() == [sent(2, 1, 2), sent(3, 1, 3), sent(4, 1, 4)]
    assert session.behind == {}


def test_a_gap_is_left_to_the_log() -> None:
    wire = Wire()
    session = connect(wire)
    tail = follow(session, position=4)
    offer(session, 6)
    assert wire.take() == []
    assert not tail.live
    assert wire.told() == ["lagging"]
    assert tail.head == 6


def test_what_was_sent_already_is_not_sent_again() -> None:
    wire = Wire()
    session = connect(wire)
    tail = follow(session, position=4)
    offer(session, 3, 4)
    assert wire.take() == []
    assert tail.live
    assert wire.told() == []


def test_a_full_outbox_ends_the_live_stream_for_qos_0_too() -> None:
    wire = Wire()
    session = connect(wire)
    tail = follow(session, qos=0)
    wire.full = True
    offer(session, 1)
    assert wire.take() == []
    assert not tail.live
    assert session.window.room == 0
    wire.full = False
    read(session, tail, 1, qos=1)
    assert wire.take() == [sent(1, 0, 0)]


def test_room_wakes_who_waits_for_it() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=1))
    follow(session, qos=2)
    woken = []
    session.when_room(lambda: woken.append(session.window.room))
    offer(session, 1, qos=2)
    session.pubrec(1)
    assert woken == []  # the packet id is taken until PUBCOMP
    session.pubcomp(1)
    assert woken == [1]


def test_a_log_that_is_not_followed() -> None:
    wire = Wire()
    session = connect(wire)
    tail = follow(session)
    offer(session, 1, topic=TEAM)
    offer(session, 1)
    session.park_tail(INBOX)
    session.park_tail(INBOX)
    session.park_tail(TEAM)
    offer(session, 2)
    session.puback(1)
    assert wire.take() == [sent(1, 1, 1)]
    assert session.tails == session.behind == {}
    assert tail.cursor == 1
    assert session.counts == (0, 0)
    assert INBOX in session.parked


def test_a_log_of_qos_0_has_no_cursor_to_park() -> None:
    session = connect(Wire())
    follow(session, position=3, qos=0)
    session.park_tail(INBOX)
    assert session.parked == {}
    assert kept(session).cursors == {}


def test_a_parked_log_goes_on_where_it_was() -> None:
    """Two grants of one right with a gap in between, all on one connection."""
    wire = Wire()
    session = connect(wire, Limits(max_inflight=5))
    follow(session, qos=2)
    offer(session, 1, 2)
    session.puback(1)
    session.park_tail(INBOX)
    offer(session, 3)
    assert wire.numbers() == [1, 2]
    tail = open_tail(session, qos=2)
    assert INBOX not in session.parked
    feed(session, tail, [1, 1, 1])
    assert wire.numbers()[-1:] == [3]
    for packet_id in range(1, 6):
        session.puback(packet_id)
    assert session.counts == (0, 0)
    assert kept(session).cursors == {INBOX: 3}


def test_a_new_tail_is_behind() -> None:
    wire = Wire()
    session = connect(wire)
    tail = Tail(INBOX, INBOX, 0, 1)
    session.add_tail(tail)
    offer(session, 1)
    assert wire.take() == []
    assert session.behind == {INBOX: tail}


def test_a_qos_2_entry_that_is_done_is_never_sent_again() -> None:
    """An entry of QoS 1 before it is not acknowledged yet."""
    session = connect(Wire())
    follow(session, qos=2)
    offer(session, 1)
    offer(session, 2, qos=2)
    session.pubrec(2)
    session.pubcomp(2)
    wire = Wire()
    session = connect(wire, state=kept(session))
    feed(session, open_tail(session, qos=2), [1, 2])
    assert wire.numbers() == [1]
