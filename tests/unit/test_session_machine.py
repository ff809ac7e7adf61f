"""Sessions against a model of their client, over any run of pushes, losses, rights and crashes.

The model says what a client can rely on, whatever is pushed, lost or cut off: each log in order
and without gaps, at least once with QoS 1, once with QoS 2, nothing without the right to it, and
never more than the window. After a crash more may come twice, but only what was not stored as had;
the same holds for what was under way when a right was lost.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.fanout import feeder
from broker.wire.decoder import Decoder
from broker.wire.packets import Ack, Packet, Publish, Type
from tests.unit.session_kit import INBOX, KEY, NOTES, Bench, Limits, Link, Wire, log_of, number, settle

T = TypeVar("T")
WINDOW = 3
ONE, TWO = "groups/one", "groups/two"
LOGS = (INBOX, ONE, TWO)
"""The entries of the first are of any QoS, of the second QoS 1, of the third QoS 2."""
GROUPS = (ONE, TWO)

TROUBLES = ("crashes", "failures", "rights", "filters")
"""Each run has some of them: with each, less is promised."""

turns = st.integers(0, 8)


def has(trouble: str) -> Callable[["SessionMachine"], bool]:
    return lambda machine: trouble in machine.troubles


class ClientWire(Wire):
    """Looks at each packet when it is sent, and keeps it until the client reads it."""

    def __init__(self, may_read: Callable[[str], bool]) -> None:
        super().__init__()
        self.unread: deque[Packet] = deque()
        self.open: set[int] = set()
        """Packet ids of PUBLISH packets of this connection that are not done."""
        self.released: set[int] = set()
        self._may_read = may_read
        self._decoder = Decoder(1 << 20)

    def send(self, data: bytes) -> None:
        self._decoder.feed(data)
        while (packet := self._decoder.next_packet()) is not None:
            self._check(packet)
            self.unread.append(packet)

    def _check(self, packet: Packet) -> None:
        if isinstance(packet, Publish):
            assert self._may_read(packet.topic), "sent without the right to it"
            if packet.qos:
                assert packet.packet_id not in self.open, "one packet id for two messages"
                self.open.add(packet.packet_id)
                assert len(self.open) <= WINDOW
        else:
            assert isinstance(packet, Ack)
            assert packet.type == Type.PUBREL
            if packet.packet_id in self.open:
                self.released.add(packet.packet_id)

    def acknowledged(self, packet_id: int) -> None:
        self.open.discard(packet_id)

    def completed(self, packet_id: int) -> None:
        if packet_id in self.released:
            self.open.discard(packet_id)
            self.released.discard(packet_id)


class SessionMachine(RuleBasedStateMachine):
    """Each rule takes some turns of the event loop: what it began may not be done after it."""

    @initialize(delivers_late=st.booleans(), troubles=st.sets(st.sampled_from(TROUBLES)))
    def start(self, delivers_late: bool, troubles: set[str]) -> None:
        self.troubles = troubles
        self.loop = asyncio.new_event_loop()
        feeder._RETRY_SECONDS = 0
        # 4.3.3 lets a client hand a message of QoS 2 on at PUBLISH or at PUBREL.
        self.delivers_late = delivers_late
        self.notes: list[int] = []
        self.notes_are_sure = True
        self.subscribed = True
        self.must_rejoin: set[str] = set()
        # What the client has had, over all connections; what it was sent; what it need not get; and
        # how much oftener than once it may have had it.
        self.had: dict[str, Counter[int]] = {topic: Counter() for topic in [*LOGS, NOTES]}
        self.seen: dict[str, set[int]] = {topic: set() for topic in [*LOGS, NOTES]}
        self.excused: dict[str, int] = dict.fromkeys(LOGS, 0)
        self.again: Counter[int] = Counter()
        self.receiving: dict[int, tuple[str, int]] = {}
        self.bench = Bench(Limits(WINDOW, 2))
        self.do(self.connect, 0)
        self.bench.rights = dict.fromkeys(LOGS, 0)
        self.do(lambda: self.link.subscribe(("groups/+", 2), (INBOX, 2), (NOTES, 2)), 40)

    def do(self, step: Callable[[], T], turns: int) -> T:
        async def job() -> T:
            done = step()
            if isinstance(done, Coroutine):
                done = await done
            await settle(turns)
            return done

        return self.loop.run_until_complete(job())

    def connect(self) -> None:
        bench = self.bench
        self.wire = ClientWire(lambda topic: topic == NOTES or topic in bench.rights)
        self.link = Link(bench, self.wire)
        # Packets the client has read and not answered, by what it answers with.
        self.to_puback: list[int] = []
        self.to_answer: list[tuple[Type, int]] = []
        self.last = dict.fromkeys([*LOGS, NOTES], 0)
        if TWO not in bench.rights:
            self.may_come_again()

    def may_come_again(self) -> None:
        """The right to the log of QoS 2 was lost: from the first entry under way on."""
        state, session = self.bench.store.sessions.get(KEY), self.link.session
        inflight = [*(state.inflight if state else ()), *(session.snapshot().inflight if session else ())]
        under_way = [item.offset for item in inflight if item.log == log_of(TWO)]
        if under_way:
            self.again.update(range(min(under_way), self.head(TWO) + 1))

    def head(self, topic: str) -> int:
        return len(self.bench.store.logs.get(log_of(topic), ()))

    # --- the node -----------------------------------------------------------------------

    @rule(topic=st.sampled_from(LOGS), qos=st.integers(0, 2), pushed=st.sampled_from([1, 1, 0]), turns=turns)
    def append(self, topic: str, qos: int, pushed: int, turns: int) -> None:
        qos = {ONE: 1, TWO: 2}.get(topic, qos)
        self.do(lambda: self.bench.append(topic, qos, pushed=bool(pushed)), turns)

    @rule(qos=st.integers(1, 2), turns=turns)
    def note(self, qos: int, turns: int) -> None:
        self.notes.append(qos)
        self.do(lambda: self.bench.pipeline.broadcast(NOTES, b"%d" % len(self.notes), qos), turns)

    @rule(full=st.booleans(), turns=turns)
    def outbox(self, full: bool, turns: int) -> None:
        self.wire.full = full
        if not full and self.link.session is not None:
            self.do(self.link.session.refill, turns)

    @rule(turns=st.integers(1, 50))
    def go_on(self, turns: int) -> None:
        self.do(lambda: None, turns)

    @rule(answers=st.booleans(), fails=st.booleans())
    def stores(self, answers: bool, fails: bool) -> None:
        """`fails` is only ever seen by the feeder: elsewhere it ends the connection."""
        self.bench.store.fails = fails and not self.link.busy and "failures" in self.troubles
        for event in (self.bench.store.answers, self.bench.directory):
            self.do(event.set if answers else event.clear, 0)

    # --- rights and filters -------------------------------------------------------------

    @precondition(has("rights"))
    @rule(topic=st.sampled_from(GROUPS), turns=turns)
    def revoke(self, topic: str, turns: int) -> None:
        if topic == TWO and topic in self.bench.rights:
            self.may_come_again()
        self.do(lambda: self.bench.revoke(topic), turns)
        if not self.subscribed:
            self.must_rejoin.add(topic)

    @precondition(has("rights"))
    @rule(topic=st.sampled_from(GROUPS), rejoins=st.booleans(), turns=turns)
    def give(self, topic: str, rejoins: bool, turns: int) -> None:
        """The right is as it was, or begins here for one who `rejoins`."""
        if topic in self.bench.rights:
            return
        self.last[topic] = 0
        if rejoins or topic in self.must_rejoin:
            self.must_rejoin.discard(topic)
            self.excused[topic] = self.head(topic)
        self.do(lambda: self.bench.give(topic, self.excused[topic]), turns)

    @rule(qos=st.integers(1, 2), turns=turns)
    def subscribe_again(self, qos: int, turns: int) -> None:
        self.calm()
        self.do(lambda: self.link.subscribe((INBOX, qos)), turns)

    @precondition(lambda self: self.subscribed and "filters" in self.troubles)
    @rule(turns=turns)
    def unsubscribe(self, turns: int) -> None:
        self.calm()
        self.subscribed = False
        self.must_rejoin |= {topic for topic in GROUPS if topic not in self.bench.rights}
        self.do(lambda: self.link.unsubscribe("groups/+"), turns)

    @precondition(lambda self: not self.subscribed)
    @rule()
    def subscribe(self) -> None:
        self.calm()
        for topic in GROUPS:
            self.excused[topic] = self.head(topic)
            self.last[topic] = 0
        self.do(lambda: self.link.subscribe(("groups/+", 2)), 60)
        assert not self.link.busy
        self.subscribed = True

    def calm(self) -> None:
        """Nothing is being waited for, and the client is connected."""
        self.stores(True, False)
        self.do(lambda: None, 60)
        if self.link.closed:  # the store failed
            self.do(self.connect, 60)

    # --- the client ---------------------------------------------------------------------

    @rule(count=st.integers(1, 6))
    def client_reads(self, count: int) -> None:
        for _ in range(min(count, len(self.wire.unread))):
            self.reads_one(self.wire.unread.popleft())

    def reads_one(self, packet: Packet) -> None:
        packet_id = packet.packet_id
        if isinstance(packet, Ack):
            held = self.receiving.pop(packet_id, None)
            if held is not None and self.delivers_late:
                self.had[held[0]][held[1]] += 1
            self.to_answer.append((Type.PUBCOMP, packet_id))
            return
        topic, offset = packet.topic, number(packet)
        self.is_next(topic, offset)
        self.seen[topic].add(offset)
        if packet.qos < 2:
            self.had[topic][offset] += 1
            if packet.qos:
                self.to_puback.append(packet_id)
            return
        self.to_answer.append((Type.PUBREC, packet_id))
        if self.delivers_late:
            self.receiving[packet_id] = (topic, offset)
        elif packet_id not in self.receiving:  # else the application has it (4.3.3)
            self.receiving[packet_id] = (topic, offset)
            self.had[topic][offset] += 1

    def is_next(self, topic: str, offset: int) -> None:
        assert offset > self.last[topic], "out of order"
        if topic in LOGS and (self.subscribed or topic == INBOX):
            log = self.bench.store.logs[log_of(topic)]
            after = max(self.last[topic], self.excused[topic])
            missing = [n for n in range(after + 1, offset) if log[n - 1] and n not in self.seen[topic]]
            assert not missing, f"{topic}: {missing} skipped"
        self.last[topic] = offset

    @precondition(lambda self: self.to_puback)
    @rule(data=st.data(), turns=turns)
    def puback(self, data: st.DataObject, turns: int) -> None:
        self.answer(
            Type.PUBACK, self.to_puback.pop(data.draw(st.integers(0, len(self.to_puback) - 1))), turns
        )

    @precondition(lambda self: self.to_answer)
    @rule(turns=turns)
    def pubrec_or_pubcomp(self, turns: int) -> None:
        self.answer(*self.to_answer.pop(0), turns)  # in order [MQTT-4.6.0-3]

    def answer(self, kind: Type, packet_id: int, turns: int) -> None:
        link, wire = self.link, self.wire

        def take() -> None:
            assert link.session is not None
            if kind == Type.PUBACK:
                wire.acknowledged(packet_id)
                link.session.puback(packet_id)
            elif kind == Type.PUBREC:
                link.session.pubrec(packet_id)
            else:
                wire.completed(packet_id)
                link.session.pubcomp(packet_id)

        self.do(lambda: link.take(take), turns)

    # --- connections and crashes --------------------------------------------------------

    @rule(
        heard=st.booleans(), flaps=st.lists(turns, max_size=2), fails=st.booleans(), turns=st.integers(0, 30)
    )
    def reconnect(self, heard: bool, flaps: list[int], fails: bool, turns: int) -> None:
        """`heard`: the client has what was on its way, but its answers do not arrive. `flaps`: how
        long connections in between last. `fails`: the directory, during all that."""
        self.bench.store.fails = False
        fails = fails and "failures" in self.troubles
        self.bench.fails = fails
        if heard:
            self.client_reads(1000)
        for lasts in flaps:
            self.do(lambda: (self.link.close("lost"), self.connect()), lasts)
        self.do(lambda: (self.link.close("lost"), self.connect()), turns)
        self.bench.fails = False

    @rule(turns=st.integers(0, 10))
    def save_cursors(self, turns: int) -> None:
        self.do(self.bench.registry.save_cursors, turns)

    @precondition(has("crashes"))
    @rule(heard=st.booleans(), turns=st.integers(0, 30))
    def crash(self, heard: bool, turns: int) -> None:
        self.notes_are_sure = False
        if heard:
            self.client_reads(1000)
        if not self.delivers_late:
            # It may take a new message for one it had: what ids it holds is not stored each time.
            self.receiving.clear()
        self.link.closed = True
        bench = self.do(self.bench.crash, 0)
        state = bench.store.sessions[KEY]
        stored = state.cursors.get(log_of(TWO), 0)
        self.again.update(range(stored + 1, self.head(TWO) + 1))
        self.again.update(
            item.offset for item in state.inflight if item.log == log_of(TWO) and not item.released
        )
        bench.store.fails = False
        bench.store.answers.set()
        self.bench = bench
        self.do(self.connect, turns)

    # --- what holds ---------------------------------------------------------------------

    @invariant()
    def nothing_is_had_twice_that_must_not(self) -> None:
        if hasattr(self, "link"):
            assert all(times <= 1 + self.again[n] for n, times in self.had[TWO].items())

    def teardown(self) -> None:
        """Let everything arrive: nothing may be missing."""
        if not hasattr(self, "link"):
            return
        try:
            self.arrive()
        finally:
            self.do(self.bench.crash, 0)
            self.loop.close()

    def arrive(self) -> None:
        self.calm()
        if not self.subscribed:
            self.subscribe()
        self.outbox(False, 0)
        for topic in GROUPS:
            self.give(topic, False, 60)
        for topic in LOGS:
            self.append(topic, 1, 1, 0)
        for _ in range(10 * (sum(map(self.head, LOGS)) + len(self.notes))):
            self.do(lambda: None, 30)
            self.client_reads(1000)
            while self.to_puback:
                self.answer(Type.PUBACK, self.to_puback.pop(0), 0)
            while self.to_answer:
                self.pubrec_or_pubcomp(0)
            if not (len(self.bench.feeder) or self.wire.unread or any(self.link.session.counts)):
                break
        self.all_has_come()

    def all_has_come(self) -> None:
        session = self.link.session
        assert session is not None
        for topic in LOGS:
            log = self.bench.store.logs[log_of(topic)]
            wanted = [n for n, qos in enumerate(log, start=1) if qos and n > self.excused[topic]]
            assert [n for n in wanted if not self.had[topic][n]] == [], topic
            tail = session.tails[topic]
            assert tail.live
            assert tail.cursor == len(log)
            assert tail.resend == {}
        assert session.snapshot().cursors == {log_of(topic): self.head(topic) for topic in LOGS}
        assert session.counts == (0, 0)
        assert len(self.bench.feeder) == 0
        self.nothing_is_had_twice_that_must_not()
        if self.notes_are_sure:
            dropped = self.bench.metrics.dropped["queue_full"]
            assert len(self.had[NOTES]) + dropped >= len(self.notes)
            assert all(self.had[NOTES][n] <= 1 for n, qos in enumerate(self.notes, start=1) if qos == 2)


SessionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestSession = pytest.mark.timeout(400)(SessionMachine.TestCase)  # time to find the smallest example
