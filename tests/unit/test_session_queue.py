"""The bounded queue of a session: messages of topics without a log."""

from typing import Any

from broker.delivery.away import AwaySessions
from broker.domain.publication import Publication
from broker.ports import Enqueued, QueuedMessage
from broker.wire.packets import Publish
from tests.subscribed import subscribed
from tests.unit.session_kit import (
    INBOX,
    KEY,
    Limits,
    Wire,
    connect,
    note,
)

# --- messages of other topics ---------------------------------------------------------------


def test_other_messages_wait_for_the_window_in_a_bounded_queue() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=1, max_queued=2))
    for text in ("a", "b", "c", "d"):
        session.offer(note(text), 1)
    assert session.counts == (1, 2)
    assert wire.told() == ["queue_full"]  # "b", the oldest that waited
    for packet_id in (1, 2, 3):
        session.puback(packet_id)
    assert [(p.payload, p.packet_id) for p in wire.take() if isinstance(p, Publish)] == [
        (b"a", 1),
        (b"c", 2),
        (b"d", 3),
    ]
    assert session.counts == (0, 0)


def test_the_queue_is_bounded_in_bytes_too() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=1, max_queued=100, max_queued_bytes=1000))
    session.offer(note("first"), 1)
    for letter in "abcd":
        session.offer(note(letter * 400), 1)
    assert session.counts == (1, 2)
    assert wire.told() == ["queue_full"] * 2
    assert wire.bytes_queued == 2 * (400 + len("sensors/1"))
    session.offer(note("x" * 5000), 1)  # there is always room for one
    assert session.counts == (1, 1)
    wire.queue_room = 100  # others have nearly all that there is for all
    session.offer(note("y" * 60), 1)
    session.offer(note("z" * 60), 1)
    assert session.counts == (1, 1)
    wire.take()
    session.puback(1)
    assert [packet.payload for packet in wire.take() if isinstance(packet, Publish)] == [b"z" * 60]
    assert wire.bytes_queued == 0


def test_nothing_overtakes_the_queue() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=1))
    wire.full = True
    session.offer(note("a"), 1)
    wire.full = False
    session.offer(note("b"), 1)
    session.refill()
    session.puback(1)
    assert [p.payload for p in wire.take() if isinstance(p, Publish)] == [b"a", b"b"]


def test_qos_0_needs_no_window_but_an_outbox() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=0))
    session.offer(note("a"), 0)
    wire.full = True
    session.offer(note("b"), 0)
    assert wire.take() == [Publish("sensors/1", b"a")]
    assert wire.told() == ["slow_consumer"]
    assert session.counts == (0, 0)


def test_packet_ids_wrap_around_and_pass_over_those_in_use() -> None:
    wire = Wire()
    session = connect(wire, Limits(max_inflight=10))
    used = []
    for i in range(65535 + 5):
        session.offer(note("x"), 1)
        (packet,) = wire.take()
        assert isinstance(packet, Publish)
        used.append(packet.packet_id)
        if i != 2:  # 3 stays in use
            session.puback(packet.packet_id)
    assert used[:65535] == list(range(1, 65536))
    assert used[65535:] == [1, 2, 4, 5, 6]
    assert session.counts == (1, 0)


def test_a_session_away_queues_what_is_no_log() -> None:
    states: Any = None
    away = AwaySessions(states, ["sensors/#"], 7, 1000)
    away.stand_in(KEY, subscribed({"sensors/#": 1, "users/+/inbox": 1}))
    assert away.queue(Publication("sensors/1", b"zero", 0)) == []
    assert away.queue(Publication(INBOX, b"x", 1)) == []
    queued = Enqueued(KEY, QueuedMessage("sensors/1", b"one", 1), 7, 1000)
    assert away.queue(Publication("sensors/1", b"one", 2)) == [queued]
