"""A persistent session and its feeder against a model of one client, over any run of events.

The model keeps what the wire said: which packet ids are taken and by which entries, and which entries
are acknowledged. All else follows from that: what the next connection must send again, what a stored
cursor may be past, how many slots of the window are taken.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import cast

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.delivery.feeder import Feeder
from broker.domain.message import Entry
from broker.metrics import Metrics
from broker.ports import MessageLog, Moved, Retained, Saved, SessionState, StateChange
from broker.session.session import Session
from broker.session.tail import Tail
from broker.wire.decoder import Decoder
from broker.wire.packets import Ack, Packet, Publish, Type
from tests.unit.session_kit import (
    INBOX,
    KEY,
    Limits,
    Store,
    Wire,
    connect,
    entry,
    log_of,
    number,
    through_store,
)

ONE, TWO = "groups/one", "groups/two"
TOPICS = (INBOX, ONE, TWO)
GROUPS = (ONE, TWO)
"""Rights to these come and go."""
NAMES = {log_of(topic): topic for topic in TOPICS}

Place = tuple[str, int]
"""Topic and offset."""

topics = st.sampled_from(TOPICS)
qualities = st.sampled_from([2, 1, 0])
turns = st.integers(0, 6)
meanwhile = st.lists(st.tuples(topics, qualities), max_size=3)
"""What is published while nobody is connected."""


class Taken(msgspec.Struct):
    """What a packet id stands for. `sent`: on this connection. `lost`: the right to the entry went
    before it could be sent again, and only the packet id is left to be released."""

    topic: str
    offset: int
    qos: int
    released: bool = False
    sent: bool = False
    lost: bool = False

    def is_done_by(self, kind: Type) -> bool:
        return self.released if kind == Type.PUBCOMP else kind == Type.PUBACK and self.qos == 1


class ShortReads(Store):
    """Gives few entries at a time, as of long ones, and when it does there may be more."""

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        entries = await super().read(log, after, min(limit, 2), max_bytes)
        await asyncio.sleep(0)
        return entries


class ClientWire(Wire):
    """Hands each packet over when it is sent, and keeps it until the client reads it."""

    def __init__(self, sent: Callable[[Packet], None], lagging: Callable[[Session], None]) -> None:
        super().__init__()
        self.unread: deque[Packet] = deque()
        self._sent = sent
        self._lagging = lagging
        self._decoder = Decoder(1 << 20)

    def send(self, data: bytes) -> None:
        self._decoder.feed(data)
        while (packet := self._decoder.next_packet()) is not None:
            self._sent(packet)
            self.unread.append(packet)

    def lagging(self, session: Session) -> None:
        self._lagging(session)


async def _nothing_retained(_topic_filter: str, _after: str, _limit: int) -> list[Retained]:
    return []


class SessionMachine(RuleBasedStateMachine):
    """Rules take some turns of the event loop, or none: any other may come in between."""

    @initialize(window=st.integers(1, 4), filters=st.tuples(*[qualities] * 3), late=st.booleans())
    def start(self, window: int, filters: tuple[int, ...], late: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = ShortReads()
        self.uncommitted: list[StateChange] = []
        self.feeder = Feeder(cast(MessageLog, self.store), _nothing_retained, Metrics())
        self.limits = Limits(window)
        self.filters = dict(zip(TOPICS, filters, strict=True))
        # Topic -> where the right begins; the last offset that was pushed; what must arrive, as it is
        # published and subscribed to with QoS 1 or 2.
        self.rights = dict.fromkeys(TOPICS, 0)
        self.pushed = dict.fromkeys(TOPICS, 0)
        self.wanted: dict[str, set[int]] = {topic: set() for topic in TOPICS}
        # The client. 4.3.3 lets it hand a message of QoS 2 on at PUBLISH or, `delivers_late`, at PUBREL.
        self.delivers_late = late
        self.held: dict[int, Place] = {}
        self.answers: dict[int, Type] = {}
        self.had: Counter[Place] = Counter()
        self.had_as_2: Counter[Place] = Counter()
        self.taken: dict[int, Taken] = {}
        self.acknowledged: set[Place] = set()
        # How much oftener than once an entry may come with QoS 2.
        self.again: Counter[Place] = Counter()
        self.do(lambda: self.open(SessionState(dict(self.filters), {}, [], [], [])), 20)
        self.save()

    # --- the node, as registry, subscriptions and states make it ------------------------

    def do(self, step: Callable[[], object], turns: int) -> None:
        async def job() -> None:
            done = step()
            if isinstance(done, Coroutine):
                await done
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(job())

    def head(self, topic: str) -> int:
        return len(self.store.logs.get(log_of(topic), ()))

    def commit_entry(self, topic: str, qos: int) -> None:
        self.store.logs.setdefault(log_of(topic), []).append(qos)
        if qos and self.filters[topic]:
            self.wanted[topic].add(self.head(topic))

    def push(self, topic: str) -> None:
        """Push the last entry."""
        if log := self.store.logs.get(log_of(topic)):
            self.pushed[topic] = len(log)
            self.session.offer_entry(topic, len(log), entry(topic, len(log), log[-1]))

    def open(self, state: SessionState, follows: bool = True) -> None:
        self.wire = ClientWire(self.is_sent, self.feeder.lagging)
        self.last = dict.fromkeys(TOPICS, 0)
        self.newly_sent: set[Place] = set()
        for taken in self.taken.values():
            taken.sent = False
        self.session = connect(self.wire, self.limits, state)
        if follows:
            self.follow()
            self.lose()
            self.session.forget_lost()

    def follow(self) -> None:
        """Bring tails in line with rights, as `Subscriptions` does."""
        session = self.session
        for topic in [topic for topic in session.tails if topic not in self.rights]:
            self.lose()
            session.park_tail(topic)
        for topic in [topic for topic in self.rights if topic not in session.tails]:
            log, qos, floor = log_of(topic), self.filters[topic], self.rights[topic]
            position = self.head(topic)
            if log in session.parked:
                position = max(session.parked[log], floor)
            elif qos and topic in GROUPS:
                position = floor
                self.may_come_again(topic, floor)  # it had QoS 0 before
                self.last[topic] = 0
            session.add_tail(Tail(topic, log, position, qos))
        if session.behind:
            self.feeder.lagging(session)

    def lose(self) -> None:
        """What is to be sent again cannot be without a right: cursors go back before it."""
        for packet_id, taken in list(self.taken.items()):
            if taken.topic in self.rights or taken.sent or taken.released:
                continue
            self.may_come_again(taken.topic, taken.offset - 1)
            if not self.filters[taken.topic]:
                self.wanted[taken.topic].discard(taken.offset)
            taken.lost = True
            if taken.qos == 1:
                del self.taken[packet_id]

    def may_come_again(self, topic: str, after: int) -> None:
        self.again.update((topic, offset) for offset in range(after + 1, self.head(topic) + 1))

    def change_right(self, topic: str, begins_here: bool) -> None:
        if topic in self.rights:
            del self.rights[topic]
        else:
            self.rights[topic] = floor = self.head(topic) if begins_here else 0
            self.wanted[topic] = {offset for offset in self.wanted[topic] if offset > floor}

    def save(self) -> None:
        """On SUBSCRIBE, which is answered when this is on disk."""
        self.session.logs.saved()
        self.uncommitted.append(Saved(KEY, self.session.snapshot(), 0))
        self.commit()

    def commit(self) -> None:
        for change in self.uncommitted:
            self.store._apply(change)
        self.uncommitted.clear()

    def load(self) -> SessionState:
        self.commit()
        return through_store(self.store.sessions[KEY])

    def end(self) -> None:
        self.session.disconnected()
        self.feeder.forget(self.session)
        self.wire.unread.clear()

    def disconnect(self) -> None:
        self.end()
        self.uncommitted.append(Saved(KEY, self.session.snapshot(), 0))

    # --- rules: the node ----------------------------------------------------------------

    @rule(
        topic=topics, several=st.lists(qualities, max_size=3), pushed=st.booleans(), turns=st.integers(0, 12)
    )
    def append(self, topic: str, several: list[int], pushed: bool, turns: int) -> None:
        """A push is a hint: it may come late or never."""
        for qos in several:
            self.commit_entry(topic, qos)
            if pushed:
                self.do(lambda: self.push(topic), 0)
        self.do(lambda: None, turns)

    @rule(turns=turns)
    def outbox_fills_or_drains(self, turns: int) -> None:
        self.wire.full = not self.wire.full
        self.do(lambda: None if self.wire.full else self.session.refill(), turns)

    @rule(topic=st.sampled_from(GROUPS), begins_here=st.booleans(), turns=turns)
    def right_comes_or_goes(self, topic: str, begins_here: bool, turns: int) -> None:
        def change() -> None:
            self.change_right(topic, begins_here)
            self.follow()

        self.do(change, turns)

    @rule(topic=topics, qos=qualities, turns=turns)
    def subscribe_again(self, topic: str, qos: int, turns: int) -> None:
        if not qos:  # what was not sent yet need not come now
            under_way = {(t.topic, t.offset) for t in self.taken.values() if not t.lost}
            self.wanted[topic] = {n for n in self.wanted[topic] if (topic, n) in under_way}
        self.filters[topic] = self.session.filters[topic] = qos
        if topic in self.session.tails:
            self.session.tails[topic].grant(qos)
        self.save()
        self.do(lambda: None, turns)

    @rule(commits=st.booleans())
    def save_cursors(self, commits: bool) -> None:
        if "moved" in self.wire.told():
            self.uncommitted.append(Moved(KEY, self.session.logs.to_save))
            self.session.logs.saved()
        if commits:
            self.commit()

    # --- rules: connections and crashes -------------------------------------------------

    @rule(
        heard=st.booleans(),
        meanwhile=meanwhile,
        changed=st.sampled_from([None, *GROUPS]),
        flaps=st.booleans(),
        answers=st.booleans(),
        turns=turns,
    )
    def reconnect(
        self, heard: bool, meanwhile: list[Place], changed: str | None, flaps: bool, answers: bool, turns: int
    ) -> None:
        """`heard`: the client has what was on its way, and if it `answers` does so after it came back.
        `flaps`: a connection in between ends before it reads any log."""
        if heard:
            self.read(1000)
        self.disconnect()
        for topic, qos in meanwhile:
            self.commit_entry(topic, qos)
        if changed is not None:
            self.change_right(changed, False)
        # It answers PUBREL only when that is sent again.
        late = {packet_id: kind for packet_id, kind in self.answers.items() if kind != Type.PUBCOMP}
        self.answers = late if answers else {}
        if flaps:
            self.do(lambda: self.open(self.load(), follows=False), 0)
            self.disconnect()
        self.do(lambda: self.open(self.load()), turns)

    @rule(heard=st.booleans(), commits=st.booleans(), meanwhile=meanwhile, turns=turns)
    def crash(self, heard: bool, commits: bool, meanwhile: list[Place], turns: int) -> None:
        if heard:
            self.read(1000)
        self.end()
        if not commits:
            self.uncommitted.clear()
        state = self.load()
        self.answers.clear()  # packet ids need not mean the same any more
        if not self.delivers_late:
            self.held.clear()
        self.taken = {m.packet_id: Taken("", 0, 2, released=True, lost=True) for m in state.queue}
        for item in state.inflight:
            if item.packet_id:
                place = (NAMES[item.log], item.offset)
                self.taken[item.packet_id] = Taken(*place, item.qos, item.released)
                self.again[place] += not item.released
        for topic in TOPICS:
            self.may_come_again(topic, state.cursors.get(log_of(topic), 0))
        for topic, qos in meanwhile:
            self.commit_entry(topic, qos)
        self.do(lambda: self.open(state), turns)

    # --- the client ---------------------------------------------------------------------

    def is_sent(self, packet: Packet) -> None:
        assert isinstance(packet, Publish | Ack)
        taken = self.taken.get(packet.packet_id)
        if isinstance(packet, Ack):
            assert packet.type == Type.PUBREL
            if taken is not None and taken.qos == 2:
                taken.released = True
            return
        topic, offset = place = packet.topic, number(packet)
        assert topic in self.rights, "sent without the right to it"
        assert offset > self.last[topic], "out of order, or twice"
        released = {(t.topic, t.offset) for t in self.taken.values() if t.released and not t.lost}
        earlier = {(topic, n) for n in self.wanted[topic] if n < offset}
        assert earlier <= self.newly_sent | self.acknowledged | released, "skipped"
        self.last[topic] = offset
        self.newly_sent.add(place)
        if packet.dup:
            assert taken == Taken(topic, offset, packet.qos), "not what the packet id stands for"
            taken.sent = True
        elif packet.qos:
            assert taken is None, "one packet id for two messages"
            self.taken[packet.packet_id] = Taken(topic, offset, packet.qos, sent=True)

    @rule(count=st.integers(1, 6))
    def read(self, count: int) -> None:
        for _ in range(min(count, len(self.wire.unread))):
            self.read_one(self.wire.unread.popleft())

    def read_one(self, packet: Packet) -> None:
        packet_id = packet.packet_id
        if isinstance(packet, Ack):
            held = self.held.pop(packet_id, None)
            if held is not None and self.delivers_late:
                self.deliver(held, 2)
            if self.answers.get(packet_id) != Type.PUBACK:
                self.answers[packet_id] = Type.PUBCOMP
            return
        assert isinstance(packet, Publish)
        place = (packet.topic, number(packet))
        if packet.qos == 1:
            self.deliver(place, 1)
            self.answers[packet_id] = Type.PUBACK
        elif packet.qos == 2:
            self.answers[packet_id] = Type.PUBREC
            if self.delivers_late:
                self.held[packet_id] = place
            elif packet_id not in self.held:
                self.held[packet_id] = place
                self.deliver(place, 2)

    def deliver(self, place: Place, qos: int) -> None:
        self.had[place] += 1
        self.had_as_2[place] += qos == 2
        assert self.had_as_2[place] <= 1 + self.again[place], "QoS 2, but twice"

    @precondition(lambda machine: machine.answers)
    @rule(which=st.integers(0, 4), turns=turns)
    def answer(self, which: int, turns: int) -> None:
        """In any order; also what an earlier connection brought and this one has not sent again."""
        packet_id = list(self.answers)[which % len(self.answers)]
        kind = self.answers.pop(packet_id)

        def take() -> None:
            if not any(isinstance(p, Publish) and p.packet_id == packet_id for p in self.wire.unread):
                self.take(kind, packet_id)

        self.do(take, turns)

    @rule(kind=st.sampled_from([Type.PUBACK, Type.PUBREC, Type.PUBCOMP]), packet_id=st.integers(1, 6))
    def answer_nothing(self, kind: Type, packet_id: int) -> None:
        taken = self.taken.get(packet_id)
        if taken is None or not (taken.is_done_by(kind) or (kind == Type.PUBREC and taken.qos == 2)):
            self.take(kind, packet_id)

    def take(self, kind: Type, packet_id: int) -> None:
        taken, session = self.taken.get(packet_id), self.session
        if taken is not None and taken.is_done_by(kind):
            del self.taken[packet_id]
            if not taken.lost:
                self.acknowledged.add((taken.topic, taken.offset))
        answers = {Type.PUBACK: session.puback, Type.PUBREC: session.pubrec, Type.PUBCOMP: session.pubcomp}
        answers[kind](packet_id)

    # --- what holds ---------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "session"):
            return
        session = self.session
        assert session.counts == (len(self.taken), 0), "a slot is lost, or one taken is free"
        assert len(self.taken) <= self.limits.max_inflight
        self.is_safe(session.snapshot())
        later = Store()
        later.sessions[KEY] = through_store(self.store.sessions[KEY])
        for change in [*self.uncommitted, Moved(KEY, session.logs.to_save)]:
            later._apply(change)
        self.is_safe(later.sessions[KEY])
        if not len(self.feeder):
            assert session.behind == {}
            assert all(t.live and t.position >= self.pushed[t.topic] for t in session.tails.values())

    def is_safe(self, state: SessionState) -> None:
        """No cursor is past what may have to be sent again, unless it is listed."""
        listed = {(NAMES[item.log], item.offset) for item in state.inflight}
        for topic, wanted in self.wanted.items():
            cursor = state.cursors.get(log_of(topic), 0)
            assert {(topic, n) for n in wanted if n <= cursor} <= listed | self.acknowledged

    def all_arrives(self) -> None:
        session = self.session
        self.wire.full = False
        session.refill()
        self.do(lambda: [self.push(topic) for topic in TOPICS], 0)
        for _ in range(8 * sum(map(self.head, TOPICS)) + 20):
            self.do(lambda: None, 5)
            self.read(1000)
            while self.answers:
                self.answer(0, 0)
            if not self.taken and not len(self.feeder):
                break
        assert session.counts == (0, 0)
        assert len(self.feeder) == 0
        assert not [item for item in session.snapshot().inflight if NAMES[item.log] in self.rights]
        for topic, tail in session.tails.items():
            assert [n for n in self.wanted[topic] if not self.had[topic, n]] == []
            assert tail.cursor == tail.position == self.head(topic)
            assert tail.resend == {}

    def teardown(self) -> None:
        """Let everything arrive: nothing may be missing."""
        if not hasattr(self, "session"):
            return
        try:
            self.all_arrives()
            for topic in [topic for topic in GROUPS if topic not in self.rights]:
                self.right_comes_or_goes(topic, False, 0)
            self.all_arrives()
            assert self.session.snapshot().cursors == {
                log_of(t): self.head(t) for t in TOPICS if self.filters[t]
            }
        finally:
            self.do(self.end, 1)
            self.loop.close()


SessionMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)
TestSession = pytest.mark.timeout(400)(SessionMachine.TestCase)  # time to find the smallest example
