"""A restored session: the next connection sends again what the last one left unacknowledged."""

import pytest

from broker.ports import PacketIds, QueuedMessage, Redelivery, SessionState
from broker.wire.packets import Ack, Publish, Type
from tests.subscribed import subscribed
from tests.unit.session_kit import (
    INBOX,
    TEAM,
    Limits,
    Wire,
    connect,
    entry,
    feed,
    follow,
    kept,
    note,
    offer,
    open_tail,
    sent,
)

STATE = SessionState(
    filters=subscribed({INBOX: 2, TEAM: 1}),
    cursors={INBOX: 7, "g:team": 9},
    inflight=[Redelivery(1, INBOX, 6, 1), Redelivery(4, INBOX, 7, 2), Redelivery(2, "g:team", 9, 2, True)],
    received=[3, 8],
    queue=[
        QueuedMessage("sensors/1", b"sent", 1, False, packet_id=6),
        QueuedMessage("", b"", 2, False, packet_id=7, released=True),
        QueuedMessage("sensors/1", b"waits", 2, True),
    ],
)


def left(*inflight: Redelivery, **cursors: int) -> SessionState:
    """Of a session with a cursor in the inbox and, by name, in groups."""
    position = cursors.pop("inbox", 5)
    groups = {f"g:{group}": cursor for group, cursor in cursors.items()}
    filters = {INBOX: 2} | {f"groups/{group}": 2 for group in cursors}
    return SessionState(subscribed(filters), {INBOX: position} | groups, list(inflight), [], [])


def test_a_session_that_came_back_sends_what_was_in_its_window() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=10), STATE)
    assert wire.take() == [
        Ack(Type.PUBREL, 2),
        Publish("sensors/1", b"sent", 1, packet_id=6, dup=True),
        Ack(Type.PUBREL, 7),
        Publish("sensors/1", b"waits", 2, packet_id=3, retain=True),
    ]
    assert session.inbound.received == [3, 8]
    assert session.filters == STATE.filters
    tail = open_tail(session, qos=2)
    feed(session, tail, [1] * 6 + [2] * 2)
    assert wire.take() == [sent(6, 1, 1, dup=True), sent(7, 2, 4, dup=True), sent(8, 2, 5)]
    assert tail.cursor == 5
    session.puback(1)
    session.pubrec(4)
    session.pubcomp(4)
    assert tail.cursor == 7
    assert tail.resend == {}


def test_an_entry_is_sent_again_with_the_qos_it_had() -> None:
    """Meanwhile the filter was subscribed to again, with QoS 0."""
    wire = Wire()
    session = connect(wire, state=left(Redelivery(4, INBOX, 5, 2), Redelivery(7, INBOX, 6, 1)))
    feed(session, open_tail(session, qos=0), [2] * 7)
    assert wire.take() == [sent(5, 2, 4, dup=True), sent(6, 1, 7, dup=True), sent(7, 0, 0)]


def test_a_connection_that_ends_before_its_logs_are_followed_loses_nothing() -> None:
    after = kept(connect(Wire(), Limits(max_inflight=10), STATE))
    assert after.cursors == STATE.cursors
    assert after.filters == STATE.filters
    assert after.received == STATE.received
    assert after.inflight == STATE.inflight
    assert {m.payload: m.retain for m in after.queue if m.payload} == {b"sent": False, b"waits": True}


@pytest.mark.parametrize("resent", range(4))
def test_a_connection_that_ends_while_entries_are_sent_again_loses_nothing(resent: int) -> None:
    """The cursor is lower than the entries in the window, as after a crash."""
    state = left(Redelivery(1, INBOX, 5, 1), Redelivery(4, INBOX, 6, 2), Redelivery(7, INBOX, 8, 1))
    session = connect(Wire(), state=state)
    tail = open_tail(session, qos=2)
    for offset in (5, 6, 7, 8)[:resent]:
        session.send_entry(tail, offset, entry(INBOX, offset, 2))
    after = kept(session)
    assert after.cursors[INBOX] == tail.position
    assert {(item.packet_id, item.offset) for item in after.inflight} >= {(1, 5), (4, 6), (7, 8)}


def test_what_one_connection_leaves_the_next_takes_up() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=3, max_queued=5))
    session.filters = subscribed({INBOX: 2, "sensors/#": 2})
    taken = Publish("sensors/1", b"", 2, packet_id=9)
    assert not session.inbound.is_repeated(taken)
    session.inbound.done(taken, session.inbound.expect(taken))
    tail = follow(session, position=10, qos=2)
    offer(session, 11)
    offer(session, 12, qos=2)
    session.offer(note("n", 2), 2)
    session.offer(note("later"), 1)
    session.pubrec(3)
    assert kept(session) == SessionState(
        subscribed({INBOX: 2, "sensors/#": 2}),
        {INBOX: 12},
        [Redelivery(1, INBOX, 11, 1), Redelivery(2, INBOX, 12, 2)],
        [9],
        [
            QueuedMessage("", b"", 2, packet_id=3, released=True),
            QueuedMessage("sensors/1", b"later", 1),
        ],
        PacketIds(3, 3),
    )
    assert tail.cursor == 10


@pytest.mark.parametrize("cursor", [5, 6, 7, 8])
def test_an_entry_that_is_released_is_passed_over(cursor: int) -> None:
    """4.3.3: the receiver has it; only PUBREL and PUBCOMP are left."""
    wire = Wire()
    state = left(Redelivery(1, INBOX, 6, 1), Redelivery(2, INBOX, 7, 2, True), inbox=cursor)
    session = connect(wire, state=state)
    tail = open_tail(session, qos=2)
    feed(session, tail, [1] * 6 + [2] * 2)
    assert wire.take() == [Ack(Type.PUBREL, 2), sent(6, 1, 1, dup=True), sent(8, 2, 3)][: 3 - cursor // 8]
    session.puback(1)
    session.pubcomp(2)
    assert tail.cursor >= 7


def test_a_released_entry_stays_known_till_the_reader_is_past_it() -> None:
    """The cursor is behind it, as after a crash, and the connection goes before it is read."""
    session = connect(Wire(), state=left(Redelivery(2, INBOX, 7, 2, True)))
    open_tail(session, qos=2)
    wire = Wire()
    session = connect(wire, state=kept(session))
    feed(session, open_tail(session, qos=2), [1] * 6 + [2])
    assert wire.numbers() == [6]


@pytest.mark.parametrize("cursor", [5, 6])
@pytest.mark.parametrize(
    ("kept_as", "answers"),
    [
        (Redelivery(1, INBOX, 6, 1), ["puback"]),
        (Redelivery(1, INBOX, 6, 2), ["pubrec"]),
        (Redelivery(1, INBOX, 6, 2), ["pubrec", "pubcomp"]),
        (Redelivery(1, INBOX, 6, 2, True), ["pubcomp"]),
    ],
)
def test_an_answer_may_come_before_the_reader(kept_as: Redelivery, answers: list[str], cursor: int) -> None:
    """A client that acknowledges by hand acknowledges a message of an earlier connection. This frees the
    packet id, and the entry is independent of the next message with this id."""
    wire = Wire()
    session = connect(wire, state=left(kept_as, inbox=cursor))
    tail = open_tail(session, qos=2)
    for answer in answers:
        getattr(session, answer)(1)
    session.offer(note("0"), 1)
    assert [message.payload for message in kept(session).queue if message.payload] == [b"0"]
    feed(session, tail, [2] * 6)
    (published,) = (packet for packet in wire.take() if isinstance(packet, Publish))
    assert published.payload == b"0"
    session.puback(published.packet_id)
    session.pubcomp(1)
    assert session.counts == (0, 0)
    assert tail.cursor == 6


@pytest.mark.parametrize("offset", [5, 6])
def test_rights_that_were_lost_free_their_packet_ids(offset: int) -> None:
    session = connect(Wire(), Limits(max_inflight=1), left(Redelivery(1, "g:team", offset, 1), team=5))
    session.forget_lost()
    assert session.counts == (0, 0)
    assert session.window.room == 1
    assert kept(session).cursors["g:team"] == offset - 1


def test_a_packet_id_the_client_may_still_hold_is_released_before_it_is_used_again() -> None:
    """A client that has the message takes another PUBLISH with the same packet id for a repeat (4.3.3)."""
    wire = Wire()
    session = connect(wire, Limits(max_inflight=1), left(Redelivery(1, "g:team", 5, 2), team=5))
    session.forget_lost()
    session.offer(note("1", 2), 2)
    session.pubcomp(1)
    taken = wire.take()
    assert Ack(Type.PUBREL, 1) in taken[:-1] or taken[-1].packet_id != 1


def test_what_waited_for_lost_entries_is_sent() -> None:
    wire = Wire()
    state = left(Redelivery(1, "g:team", 5, 1), team=5)
    state.queue.append(QueuedMessage("sensors/1", b"1", 1))
    session = connect(wire, Limits(max_inflight=1), state)
    session.forget_lost()
    session.offer(note("2"), 1)
    session.puback(1)
    assert wire.numbers() == [1, 2]


@pytest.mark.parametrize("again", [False, True])
def test_a_log_that_is_parked_before_it_was_sent_again_loses_nothing(again: bool) -> None:
    """The right is lost just after the session came back, and given back at once or later."""
    wire = Wire()
    state = left(Redelivery(1, INBOX, 6, 1), Redelivery(2, INBOX, 7, 2), Redelivery(3, INBOX, 8, 1), inbox=8)
    session = connect(wire, Limits(max_inflight=3), state)
    open_tail(session, qos=2)
    session.park_tail(INBOX)
    for packet_id in (1, 2, 3):
        session.pubcomp(packet_id)  # to what may have been released
    assert session.window.room == 3
    if again:
        wire = Wire()
        session = connect(wire, Limits(max_inflight=3), kept(session))
    feed(session, open_tail(session, qos=2), [1, 1, 1, 1, 1, 1, 2, 1])
    assert wire.numbers()[-3:] == [6, 7, 8]


def test_an_entry_sent_twice_in_two_grants_leaves_no_packet_id_behind() -> None:
    session = connect(Wire(), Limits(max_inflight=2))
    follow(session)
    offer(session, 1)
    session.park_tail(INBOX)
    feed(session, open_tail(session), [1])
    wire = Wire()
    session = connect(wire, Limits(max_inflight=2), kept(session))
    feed(session, open_tail(session), [1])
    for packet in wire.take():
        assert isinstance(packet, Publish)
        session.puback(packet.packet_id)
    assert session.counts == (0, 0)


def test_a_right_lost_after_a_lower_quality_was_asked_for_frees_packet_ids_too() -> None:
    session = connect(Wire(), Limits(max_inflight=1), left(Redelivery(1, "g:team", 5, 1)))
    open_tail(session, TEAM, qos=0, floor=5)
    session.park_tail(TEAM)
    assert session.counts == (0, 0)
