"""Coalesced writes and the byte budget, with a hand-written event loop and transport."""

from collections import Counter
from collections.abc import Callable

from broker.net.budget import LEAST, Budget
from broker.net.outbox import ByteOutbox, Flusher
from tests.unit.turning_loop import Loop

BUDGET = 100


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
        self.limited: Counter[str] = Counter()
        self.budget = Budget(BUDGET, 1 << 30, self.limited)
        self.rooms: list[bool] = []
        self.outbox = ByteOutbox(self.transport, self.flusher, self.budget, self.room_again, self)
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
    outboxes = [ByteOutbox(t, bench.flusher, bench.budget, lambda: None) for t in transports]
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
    other = ByteOutbox(transport, bench.flusher, bench.budget, lambda: None)
    bench.outbox.send(b"a")
    other.send(b"b")
    bench.outbox.close()
    bench.loop.turn()
    assert transport.writes == [b"b"]
    assert bench.transport.writes == [b"a"]


# --- the budget of all outboxes ----------------------------------------------------------

KB = 1024


class Crowd:
    """Many outboxes with one budget. Each `keeps` what it is sent, or reads it at once."""

    def __init__(self, count: int, each: int, most: int) -> None:
        self.loop = Loop()
        self.limited: Counter[str] = Counter()
        self.budget = Budget(each, most, self.limited)
        flusher = Flusher(self.loop.call_soon)
        self.transports = [Transport() for _ in range(count)]
        self.rooms: list[int] = []
        self.outboxes = [
            ByteOutbox(transport, flusher, self.budget, lambda number=number: self.rooms.append(number))
            for number, transport in enumerate(self.transports)
        ]
        for transport in self.transports:
            transport.keeps = True

    def send(self, number: int, size: int) -> bool:
        """As a session does: only if the outbox is not full."""
        if self.outboxes[number].full:
            return False
        self.outboxes[number].send(bytes(size))
        self.loop.turn()
        return True

    @property
    def held(self) -> int:
        return sum(transport.buffered for transport in self.transports)


def test_who_takes_nothing_shares_the_memory_and_leaves_some_of_it() -> None:
    crowd = Crowd(1001, 1024 * KB, 64 * 1024 * KB)
    crowd.transports[0].keeps = False
    for _ in range(100):
        for number in range(1, 1001):
            crowd.send(number, 4 * KB)
        assert crowd.send(0, 4 * KB), "a reader that keeps up notices nothing"
    assert crowd.held == crowd.budget.held
    assert crowd.held < (64 * 1024 + 1000 * 4) * KB
    assert all(outbox.full for outbox in crowd.outboxes[1:])
    assert crowd.limited == {"outboxes_bytes": 1000}


def test_the_fullest_go_first() -> None:
    crowd = Crowd(9, 1000 * KB, 1000 * KB)
    for number in range(8):
        crowd.outboxes[number].send(bytes(100 * KB))
        crowd.loop.turn()
    # 800 of 1000 are held, so that 200 are free.
    assert [outbox.full for outbox in crowd.outboxes] == [False] * 9
    while crowd.send(0, 10 * KB):
        pass
    assert crowd.transports[0].buffered == 160 * KB
    assert [outbox.full for outbox in crowd.outboxes] == [True] + [False] * 8
    for number in range(1, 9):
        assert crowd.send(number, 10 * KB)


def test_there_is_room_again_when_others_read() -> None:
    crowd = Crowd(3, 1000 * KB, 600 * KB)
    while crowd.send(0, 10 * KB):
        pass
    while crowd.send(1, 10 * KB):
        pass
    assert crowd.outboxes[1].full
    crowd.transports[0].buffered = 0  # silently
    assert not crowd.send(1, 10 * KB)
    crowd.budget.look_again()
    crowd.budget.look_again()
    assert sorted(set(crowd.rooms)) == [0, 1]
    assert crowd.send(1, 10 * KB)
    crowd.transports[1].buffered = 0
    for outbox in crowd.outboxes:
        outbox.close()
    assert (crowd.budget.held, crowd.budget.allowed) == (0, 600 * KB)


def test_what_sessions_queue_counts_and_fills_no_outbox() -> None:
    crowd = Crowd(2, 100 * KB, 1000 * KB)
    crowd.send(0, 50 * KB)
    crowd.outboxes[0].queued(800 * KB)
    assert crowd.budget.held == 850 * KB
    assert crowd.outboxes[0].queue_room == crowd.outboxes[1].queue_room == 150 * KB
    assert crowd.send(0, 10 * KB), "not full"
    crowd.outboxes[0].queued(2000 * KB)
    assert crowd.outboxes[1].queue_room == LEAST
    assert crowd.send(0, 10 * KB)
    assert crowd.outboxes[0].full, "there is nothing left for it"
    crowd.outboxes[0].close()
    crowd.outboxes[0].queued(5)
    assert crowd.budget.held == 0


def test_who_ends_holds_nothing() -> None:
    crowd = Crowd(2, 100 * KB, 1000 * KB)
    crowd.send(0, 50 * KB)
    crowd.send(1, 20 * KB)
    crowd.outboxes[0].close()
    crowd.outboxes[0].drained()
    assert crowd.budget.held == 20 * KB


def test_a_little_may_always_wait() -> None:
    crowd = Crowd(100, 1000 * KB, 64 * KB)
    for number in range(100):
        crowd.send(number, LEAST)
    assert crowd.held == 100 * LEAST
    assert not any(outbox.full for outbox in crowd.outboxes)
    for number in range(100):
        assert crowd.send(number, 1)
        assert crowd.outboxes[number].full


def test_another_size_holds_for_outboxes_that_are_there() -> None:
    crowd = Crowd(1, 64 * KB, 1024 * KB)
    assert crowd.send(0, 40 * KB)
    crowd.budget.resize(32 * KB)
    assert crowd.outboxes[0].full
    crowd.budget.resize(64 * KB)
    assert not crowd.outboxes[0].full
    assert crowd.rooms == [0]


def test_an_outbox_smaller_than_the_buffer_of_its_transport_goes_on() -> None:
    """Such a transport does not tell that it has drained."""
    crowd = Crowd(1, 64 * KB, 1024 * KB)
    crowd.budget.resize(4 * KB)
    assert crowd.send(0, 5 * KB)
    assert crowd.outboxes[0].full
    crowd.transports[0].buffered = 0
    crowd.budget.look_again()
    assert crowd.rooms == [0]
