"""Coalesced writes and the byte budget, with a hand-written event loop and transport."""

from collections.abc import Callable

from broker.net.outbox import ByteOutbox, Flusher

BUDGET = 100


class Loop:
    """`call_soon`, and turns."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class Transport:
    """Buffers the bytes that the peer does not read. `keeps`: whether it reads nothing."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.keeps = False
        self.buffered = 0

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        if self.keeps:
            self.buffered += len(data)

    def get_write_buffer_size(self) -> int:
        return self.buffered


class Bench:
    """An outbox, its transport and its flusher."""

    def __init__(self, observer: Callable[[object, bytes], None] | None = None) -> None:
        self.loop = Loop()
        self.flusher = Flusher(self.loop.call_soon, observer)
        self.transport = Transport()
        self.rooms: list[bool] = []
        self.outbox = ByteOutbox(self.transport, self.flusher, BUDGET, self.room_again, self)
        self.on_room: Callable[[], None] = lambda: None

    def room_again(self) -> None:
        self.rooms.append(self.outbox.full)
        self.on_room()


def test_what_is_sent_in_one_turn_is_written_once() -> None:
    bench = Bench()
    for piece in (b"a", b"", b"bc", b"d"):
        bench.outbox.send(piece)
    assert bench.transport.writes == []
    assert len(bench.loop.calls) == 1
    bench.loop.turn()
    assert bench.transport.writes == [b"abcd"]
    assert bench.loop.calls == []
    bench.outbox.send(b"e")
    bench.loop.turn()
    assert bench.transport.writes == [b"abcd", b"e"]
    assert bench.flusher.bytes_written == 5


def test_one_call_of_the_loop_serves_all_outboxes() -> None:
    bench = Bench()
    transports = [Transport() for _ in range(3)]
    outboxes = [ByteOutbox(t, bench.flusher, BUDGET, lambda: None) for t in transports]
    for i in range(2):
        for outbox in outboxes:
            outbox.send(b"%d" % i)
    assert len(bench.loop.calls) == 1
    bench.loop.turn()
    assert [t.writes for t in transports] == [[b"01"]] * 3


def test_the_observer_sees_what_is_written() -> None:
    seen = []
    bench = Bench(lambda owner, data: seen.append((owner, data)))
    bench.outbox.send(b"ab")
    bench.outbox.send(b"c")
    bench.loop.turn()
    assert seen == [(bench, b"abc")]


def test_full_when_more_than_the_budget_is_gathered() -> None:
    bench = Bench()
    bench.outbox.send(b"x" * BUDGET)
    assert not bench.outbox.full
    bench.outbox.send(b"x")
    assert bench.outbox.full
    assert bench.rooms == []
    bench.loop.turn()
    assert bench.rooms == [False]
    assert not bench.outbox.full


def test_full_while_the_transport_holds_more_than_the_budget() -> None:
    bench = Bench()
    bench.transport.keeps = True
    bench.outbox.send(b"x" * (BUDGET + 1))
    bench.loop.turn()
    assert bench.outbox.full
    bench.transport.buffered = BUDGET + 1
    bench.outbox.drained()
    assert bench.rooms == []
    bench.transport.buffered = BUDGET
    bench.outbox.drained()
    assert bench.rooms == [False]
    bench.outbox.drained()
    assert bench.rooms == [False]  # it is told of changes only


def test_small_writes_fill_a_transport_that_takes_nothing() -> None:
    bench = Bench()
    bench.transport.keeps = True
    for _ in range(BUDGET):
        bench.outbox.send(b"x")
        bench.loop.turn()
        assert not bench.outbox.full
    bench.outbox.send(b"x")
    bench.loop.turn()
    assert bench.outbox.full


def test_what_is_gathered_counts_when_the_transport_drains() -> None:
    bench = Bench()
    bench.outbox.send(b"x" * (BUDGET + 1))
    bench.outbox.drained()  # of an earlier write; this turn's bytes are still here
    assert bench.outbox.full
    assert bench.rooms == []


def test_room_that_is_used_at_once() -> None:
    bench = Bench()
    bench.on_room = lambda: bench.outbox.send(b"more")
    bench.outbox.send(b"x" * (BUDGET + 1))
    bench.loop.turn()
    assert bench.transport.writes == [b"x" * (BUDGET + 1)]
    bench.loop.turn()
    assert bench.transport.writes[1:] == [b"more"]
    assert bench.loop.calls == []


def test_bytes_are_kept_beyond_the_budget() -> None:
    """`full` is advice: acknowledgements are sent even then."""
    bench = Bench()
    bench.transport.keeps = True
    bench.outbox.send(b"x" * 1000)
    bench.outbox.send(b"ack")
    bench.loop.turn()
    assert bench.transport.writes == [b"x" * 1000 + b"ack"]


def test_close_writes_what_was_gathered_and_nothing_after() -> None:
    bench = Bench()
    bench.outbox.send(b"last")
    bench.outbox.close()
    assert bench.transport.writes == [b"last"]
    bench.outbox.send(b"late")
    bench.outbox.drained()
    bench.outbox.close()
    bench.loop.turn()
    assert bench.transport.writes == [b"last"]
    assert bench.flusher.bytes_written == 4


def test_a_closed_outbox_does_not_keep_others_from_writing() -> None:
    bench = Bench()
    transport = Transport()
    other = ByteOutbox(transport, bench.flusher, BUDGET, lambda: None)
    bench.outbox.send(b"a")
    other.send(b"b")
    bench.outbox.close()
    bench.loop.turn()
    assert transport.writes == [b"b"]
    assert bench.transport.writes == [b"a"]
