"""A session against a model of its client, over any run of pushes, losses and reconnects.

The model says what a client can rely on: each log in order and without gaps, whatever is pushed,
lost or cut off; at least once with QoS 1, once with QoS 2; and never more than the window.
"""

from collections import Counter, deque

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.session.session import Session
from broker.session.tail import Tail
from broker.wire.decoder import Decoder
from broker.wire.encoder import Outgoing
from broker.wire.packets import Ack, Packet, Publish, Type
from tests.unit.session_kit import Limits, Wire, connect, entry, kept

WINDOW = 3
# Log by topic; the entries of the first are of QoS 1, of the second QoS 2, of the third of any.
LOGS = {"groups/one": "g:one", "groups/two": "g:two", "groups/any": "g:any"}
NOTES = "notes"


class ClientWire(Wire):
    """Looks at each packet when it is sent, and keeps it until the client reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.unread: deque[Packet] = deque()
        self.open: set[int] = set()
        """Packet ids of PUBLISH packets of this connection that are not done."""
        self.released: set[int] = set()
        self._decoder = Decoder(1 << 20)

    def send(self, data: bytes) -> None:
        self._decoder.feed(data)
        while (packet := self._decoder.next_packet()) is not None:
            self._check(packet)
            self.unread.append(packet)

    def _check(self, packet: Packet) -> None:
        if isinstance(packet, Publish) and packet.qos:
            assert packet.packet_id not in self.open, "one packet id for two messages"
            assert packet.packet_id not in self.released
            self.open.add(packet.packet_id)
            assert len(self.open) <= WINDOW
        elif isinstance(packet, Ack):
            assert packet.type == Type.PUBREL
            self.released.add(packet.packet_id)

    def done(self, packet_id: int) -> None:
        self.open.discard(packet_id)
        self.released.discard(packet_id)


class SessionMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.logs: dict[str, list[int]] = {topic: [] for topic in LOGS}
        self.notes = 0
        self.dropped = 0
        self.connections = 1
        # What the client has had, over all connections.
        self.had: dict[str, Counter[int]] = {topic: Counter() for topic in [*LOGS, NOTES]}
        self.receiving: set[int] = set()
        self._open_connection(connect(wire := ClientWire(), self.limits), wire)
        for topic in LOGS:
            self._follow(topic, 0)

    limits = Limits(max_inflight=WINDOW, max_queued=2)

    def _open_connection(self, session: Session, wire: ClientWire) -> None:
        self.session, self.wire = session, wire
        # Packets the client has read and not answered, by what it answers with.
        self.to_puback: list[int] = []
        self.to_pubrec: list[int] = []
        self.to_pubcomp: list[int] = []
        self.last = dict.fromkeys([*LOGS, NOTES], 0)

    def _follow(self, topic: str, position: int) -> None:
        self.session.add_tail(Tail(topic, LOGS[topic], position, 2))

    # --- the log and its reader ---------------------------------------------------------

    @rule(
        topic=st.sampled_from(list(LOGS)), qos=st.integers(0, 2), pushed=st.sampled_from([True, True, False])
    )
    def append(self, topic: str, qos: int, pushed: bool) -> None:
        qos = {"groups/one": 1, "groups/two": 2}.get(topic, qos)
        log = self.logs[topic]
        log.append(qos)
        if pushed:  # a push is a hint and may be lost
            self.session.offer_entry(topic, len(log), entry(topic, len(log), qos))

    @rule(chunk=st.integers(1, 5))
    def feed(self, chunk: int) -> None:
        """As the feeder does: entries after the tail's position while there is room."""
        for tail in list(self.session.behind.values()):
            log = self.logs[tail.topic]
            offsets = range(tail.position + 1, min(tail.position + chunk, len(log)) + 1)
            for offset in offsets:
                if self.session.room <= 0:
                    return
                self.session.send_entry(tail, offset, entry(tail.topic, offset, log[offset - 1]))
            if not offsets and tail.head <= tail.position:
                self.session.caught_up(tail)

    @rule(qos=st.integers(1, 2))
    def note(self, qos: int) -> None:
        self.notes += 1
        self.session.offer(Outgoing(NOTES, b"%d" % self.notes, qos), qos)

    @rule(full=st.booleans())
    def outbox(self, full: bool) -> None:
        self.wire.full = full
        if not full:
            self.session.refill()

    # --- the client ---------------------------------------------------------------------

    @rule(count=st.integers(1, 6))
    def client_reads(self, count: int) -> None:
        for _ in range(min(count, len(self.wire.unread))):
            self._client_reads_one()

    def _client_reads_one(self) -> None:
        packet = self.wire.unread.popleft()
        if isinstance(packet, Ack):
            self.receiving.discard(packet.packet_id)
            if packet.packet_id not in self.to_pubcomp:
                self.to_pubcomp.append(packet.packet_id)
            return
        assert isinstance(packet, Publish)
        topic, number, packet_id = packet.topic, int(packet.payload), packet.packet_id
        assert number > self.last[topic], "out of order"
        if topic in LOGS:
            self._check_gap(topic, number)
        self.last[topic] = number
        if packet.qos == 1:
            self.to_puback.append(packet_id)
        elif packet.qos == 2:
            self.to_pubrec.append(packet_id)
            if packet_id in self.receiving:
                assert packet.dup
                return  # 4.3.3: the application has it
            self.receiving.add(packet_id)
        self.had[topic][number] += 1

    def _check_gap(self, topic: str, number: int) -> None:
        log, had = self.logs[topic], self.had[topic]
        if self.connections == 1:
            assert number == self.last[topic] + 1
        else:
            missing = [n for n in range(self.last[topic] + 1, number) if log[n - 1] and not had[n]]
            assert not missing, f"{topic}: {missing} skipped"

    @precondition(lambda self: self.to_puback)
    @rule(data=st.data())
    def puback(self, data: st.DataObject) -> None:
        packet_id = self.to_puback.pop(data.draw(st.integers(0, len(self.to_puback) - 1)))
        self.wire.done(packet_id)
        self.session.puback(packet_id)

    @precondition(lambda self: self.to_pubrec)
    @rule()
    def pubrec(self) -> None:
        self.session.pubrec(self.to_pubrec.pop(0))  # in order [MQTT-4.6.0-3]

    @precondition(lambda self: self.to_pubcomp)
    @rule()
    def pubcomp(self) -> None:
        packet_id = self.to_pubcomp.pop(0)
        self.wire.done(packet_id)
        self.session.pubcomp(packet_id)

    # --- reconnecting -------------------------------------------------------------------

    @rule(heard=st.booleans(), flaps=st.integers(0, 1))
    def reconnect(self, heard: bool, flaps: int) -> None:
        """`heard`: the client has what was on its way, but its answers do not arrive. `flaps`:
        connections in between that end before the session is given its logs."""
        while heard and self.wire.unread:
            self._client_reads_one()
        for _ in range(1 + flaps):
            state = kept(self.session)
            self.dropped += self.wire.told().count("queue_full")
            wire = ClientWire()
            self._open_connection(connect(wire, self.limits, state), wire)
        self.connections += 1
        for topic, log in LOGS.items():
            self._follow(topic, state.cursors.get(log, len(self.logs[topic])))
        self.session.forget_lost()

    # --- what holds ---------------------------------------------------------------------

    @invariant()
    def no_cursor_is_ahead_of_the_client(self) -> None:
        if not hasattr(self, "session"):
            return
        for topic, tail in self.session.tails.items():
            assert 0 <= tail.cursor <= tail.position <= len(self.logs[topic])
            log, had = self.logs[topic], self.had[topic]
            assert all(had[n] for n in range(1, tail.cursor + 1) if log[n - 1])

    @invariant()
    def nothing_is_had_twice_that_must_not(self) -> None:
        if not hasattr(self, "session"):
            return
        assert max(self.had["groups/two"].values(), default=0) <= 1
        if self.connections == 1:
            assert all(max(had.values(), default=0) <= 1 for had in self.had.values())

    def teardown(self) -> None:
        """Let everything arrive: nothing may be missing."""
        if not hasattr(self, "session"):
            return
        self.outbox(False)
        for topic in LOGS:
            self.append(topic, 1, True)
        for _ in range(10 * (sum(map(len, self.logs.values())) + self.notes)):
            self.feed(5)
            self.client_reads(1000)
            while self.to_puback:
                packet_id = self.to_puback.pop(0)
                self.wire.done(packet_id)
                self.session.puback(packet_id)
            while self.to_pubrec:
                self.pubrec()
            self.client_reads(1000)
            while self.to_pubcomp:
                self.pubcomp()
            if not (self.session.behind or self.wire.unread or any(self.session.counts)):
                break
        for topic, tail in self.session.tails.items():
            log = self.logs[topic]
            assert tail.live
            assert tail.cursor == len(log), topic
            assert all(self.had[topic][n] for n, qos in enumerate(log, start=1) if qos), topic
        self.nothing_is_had_twice_that_must_not()
        self.dropped += self.wire.told().count("queue_full")
        assert len(self.had[NOTES]) + self.dropped == self.notes
        assert self.session.counts == (0, 0)
        assert kept(self.session).cursors == {LOGS[t]: len(log) for t, log in self.logs.items()}


SessionMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestSession = SessionMachine.TestCase
