"""A persistent session and its feeder against a model of one client, over any run of events.

The model (`session_model`) takes what the wire said through the tables of `broker.session.laws`. The
session's states must be the same, and each row one that is taken. Whatever the tables say, what a client
relies on must hold: all arrives, in order, nothing of QoS 2 twice, no cursor is past what may have to be
sent again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.domain.subscription import Subscription
from broker.ports import Moved, SessionState
from broker.session.laws import ENTRY, PACKET_ID, TAIL, Event, IdState
from broker.wire.packets import Publish, Type
from tests.unit.session_bench import Store
from tests.unit.session_kit import KEY, log_of, through_store
from tests.unit.session_model import GROUPS, NAMES, TOPICS, Client, Ledger, Place, Row, row_of, rows_of
from tests.unit.session_node import Node

topics = st.sampled_from(TOPICS)
qualities = st.sampled_from([2, 1, 0])
turns = st.integers(0, 6)
meanwhile = st.lists(st.tuples(topics, qualities), max_size=3)
"""A publication while no client is connected."""


ROWS = [(event, state) for event, row in PACKET_ID.items() for state in row]


class SessionMachine(RuleBasedStateMachine):
    """A rule takes some turns of the event loop, or none, so that other rules may run in between."""

    rows: ClassVar[set[Row]] = set()
    """Those of the tables that were taken, in all runs."""

    @initialize(window=st.integers(1, 4), filters=st.tuples(*[qualities] * 3), late=st.booleans())
    def start(self, window: int, filters: tuple[int, ...], late: bool) -> None:
        self.client = Client(late)
        self.ledger = Ledger(self.rows)
        self.node = Node(window, dict(zip(TOPICS, filters, strict=True)), self.client, self.ledger)

    # --- the node -----------------------------------------------------------------------

    @rule(
        topic=topics, several=st.lists(qualities, max_size=3), pushed=st.booleans(), turns=st.integers(0, 12)
    )
    def append(self, topic: str, several: list[int], pushed: bool, turns: int) -> None:
        """A push is a hint: it may be late or missing."""
        node = self.node
        for qos in several:
            node.commit_entry(topic, qos)
            if pushed:
                node.do(lambda: node.push(topic), 0)
        node.do(lambda: None, turns)

    @rule(turns=turns)
    def outbox_fills_or_drains(self, turns: int) -> None:
        node = self.node
        node.wire.full = not node.wire.full
        node.do(lambda: None if node.wire.full else node.session.refill(), turns)

    @rule(topic=st.sampled_from(GROUPS), begins_here=st.booleans(), turns=turns)
    def right_comes_or_goes(self, topic: str, begins_here: bool, turns: int) -> None:
        def change() -> None:
            self.node.change_right(topic, begins_here)
            self.node.follow()

        self.node.do(change, turns)

    @rule(topic=topics, qos=qualities, turns=turns)
    def subscribe_again(self, topic: str, qos: int, turns: int) -> None:
        node = self.node
        if not qos:  # what was not sent yet need not come now
            node.wanted[topic] = {n for n in node.wanted[topic] if (topic, n) in self.ledger.under_way}
        node.filters[topic] = qos
        node.session.filters[topic] = Subscription(topic, qos)
        if topic in node.session.tails:
            node.session.tails[topic].grant(qos)
        node.save()
        node.do(lambda: None, turns)

    @rule(commits=st.booleans())
    def save_cursors(self, commits: bool) -> None:
        node = self.node
        if "moved" in node.wire.told():
            node.save_moved()
        if commits:
            node.commit()

    # --- connections and crashes --------------------------------------------------------

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
        node = self.node
        if heard:
            node.read(1000)
        node.disconnect()
        for topic, qos in meanwhile:
            node.commit_entry(topic, qos)
        if changed is not None:
            node.change_right(changed, False)
        self.client.reconnect(answers)
        if flaps:
            node.do(lambda: node.open(node.load(), follows=False), 0)
            node.disconnect()
        node.do(lambda: node.open(node.load()), turns)

    @rule(topic=st.sampled_from(GROUPS), several=st.lists(qualities, max_size=3), which=st.integers(0, 2))
    def right_goes_while_away(self, topic: str, several: list[int], which: int) -> None:
        """And comes back: the reader may begin before an entry that the receiver has had."""
        self.append(topic, several, True, 0)
        self.node.read(1000)
        if self.client.answers:
            self.answer(-1 - which, 0)
        self.reconnect(True, [], topic, False, True, 0)
        self.right_comes_or_goes(topic, False, 0)

    @rule(heard=st.booleans(), commits=st.booleans(), meanwhile=meanwhile, turns=turns)
    def crash(self, heard: bool, commits: bool, meanwhile: list[Place], turns: int) -> None:
        node = self.node
        if heard:
            node.read(1000)
        node.end()
        if not commits:
            node.uncommitted.clear()
        state = node.load()
        self.client.node_died()
        self.ledger.restart(state)
        for place in self.ledger.under_way - self.ledger.released:
            self.client.again[place] += 1
        for topic in TOPICS:
            node.may_come_again(topic, state.cursors.get(log_of(topic), 0))
        for topic, qos in meanwhile:
            node.commit_entry(topic, qos)
        node.do(lambda: node.open(state), turns)

    # --- the client ---------------------------------------------------------------------

    @rule(count=st.integers(1, 6))
    def read(self, count: int) -> None:
        self.node.read(count)

    @precondition(lambda machine: machine.client.answers)
    @rule(which=st.integers(0, 4), turns=turns)
    def answer(self, which: int, turns: int) -> None:
        """In any order, including messages of an earlier connection that this one has not sent again yet."""
        answers, node = self.client.answers, self.node
        packet_id = list(answers)[which % len(answers)]
        kind = answers.pop(packet_id)

        def take() -> None:
            if not any(isinstance(p, Publish) and p.packet_id == packet_id for p in node.wire.unread):
                node.take(kind, packet_id)

        node.do(take, turns)

    @rule(kind=st.sampled_from([Type.PUBACK, Type.PUBREC, Type.PUBCOMP]), packet_id=st.integers(1, 6))
    def answer_nothing(self, kind: Type, packet_id: int) -> None:
        if self.ledger.means_nothing(kind, packet_id):
            self.node.take(kind, packet_id)

    # --- the table ----------------------------------------------------------------------

    @rule(row=st.sampled_from(ROWS), topic=topics)
    def take_row(self, row: tuple[Event, IdState], topic: str) -> None:
        """Bring a row of the table about: a packet id into its state, on the way the table says, and
        then the event."""
        event, state = row
        self.bring(state, topic)
        self.happen(event, state, topic)

    def bring(self, state: IdState, topic: str) -> None:
        if state is not IdState.FREE and not self.ids_in(state):
            # States are numbered in the order in which a packet id first comes to them.
            event, before = next((e, s) for e, s in ROWS if PACKET_ID[e][s] is state and s < state)
            self.bring(before, topic)
            self.happen(event, before, topic)

    def ids_in(self, state: IdState) -> list[int]:
        return [i for i, taken in self.ledger.ids.items() if taken.state is state and not taken.lost]

    def happen(self, event: Event, state: IdState, topic: str) -> None:
        """To a packet id in this state, if there is one: a full window or a lost right may prevent it."""
        node, ledger, ids = self.node, self.ledger, self.ids_in(state)
        if state is IdState.FREE:
            qos = 1 if event is Event.PUBLISH_1 else 2
            asked = [t for t in (topic, *TOPICS) if node.filters[t] >= qos and t in node.rights]
            self.append((asked or [topic])[0], [qos], True, 0)
        elif event is Event.PUBLISH_AGAIN:
            node.do(lambda: None, 6)
        elif event is Event.RECONNECT:
            self.reconnect(True, [], None, False, True, 0)
        elif event is Event.LOSE:
            for lost in sorted({ledger.ids[i].topic for i in ids} & node.rights.keys() & set(GROUPS)):
                self.right_comes_or_goes(lost, False, 0)
        else:
            node.read(1000)
            answers, kind = self.client.answers, Type[event.name]
            for packet_id in [i for i in ids if answers.get(i) == kind][:1]:
                node.do(partial(self.take, answers.pop(packet_id), packet_id, PACKET_ID[event][state]), 0)

    def take(self, kind: Type, packet_id: int, then: IdState) -> None:
        self.node.take(kind, packet_id)
        states = {i: sent.state for i, sent in self.node.session.window}
        assert states.get(packet_id, IdState.FREE) is then

    # --- what holds ---------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "node"):
            return
        node, session, ledger = self.node, self.node.session, self.ledger
        ledger.look(session)
        ledger.agrees(session)
        assert session.counts == (len(ledger.open), 0), "a slot is lost, or one taken is free"
        assert len(ledger.open) <= node.limits.max_inflight
        self.is_safe(session.snapshot())
        later = Store()
        later.sessions[KEY] = through_store(node.store.sessions[KEY])
        for change in [*node.uncommitted, Moved(KEY, session.logs.to_save)]:
            later._apply(change)
        self.is_safe(later.sessions[KEY])
        if not len(node.feeder):
            assert session.behind == {}
            assert all(t.live and t.position >= node.pushed[t.topic] for t in session.tails.values())

    def is_safe(self, state: SessionState) -> None:
        """A cursor has passed no entry that may have to be sent again, unless that entry is listed."""
        listed = {(NAMES[item.log], item.offset) for item in state.inflight}
        for topic, wanted in self.node.wanted.items():
            cursor = state.cursors.get(log_of(topic), 0)
            assert {(topic, n) for n in wanted if n <= cursor} <= listed | self.ledger.acknowledged

    def all_arrives(self) -> None:
        node, session = self.node, self.node.session
        node.wire.full = False
        session.refill()
        node.do(lambda: [node.push(topic) for topic in TOPICS], 0)
        for _ in range(8 * sum(map(node.head, TOPICS)) + 20):
            node.do(lambda: None, 5)
            node.read(1000)
            while self.client.answers:
                self.answer(0, 0)
            if not self.ledger.ids and not len(node.feeder):
                break
        assert session.counts == (0, 0)
        assert len(node.feeder) == 0
        assert not [item for item in session.snapshot().inflight if NAMES[item.log] in node.rights]
        for topic, tail in session.tails.items():
            assert [n for n in node.wanted[topic] if not self.client.had[topic, n]] == []
            assert tail.cursor == tail.position == node.head(topic)
            assert tail.resend == {}
        self.holds()

    def teardown(self) -> None:
        """Let everything arrive: nothing may be missing."""
        if not hasattr(self, "node"):
            return
        node = self.node
        try:
            self.all_arrives()
            for topic in [topic for topic in GROUPS if topic not in node.rights]:
                self.right_comes_or_goes(topic, False, 0)
            self.all_arrives()
            assert node.session.snapshot().cursors == {
                log_of(t): node.head(t) for t in TOPICS if node.filters[t]
            }
        finally:
            node.do(node.end, 1)
            node.loop.close()


@contextmanager
def machine(window: int = 3) -> Iterator[SessionMachine]:
    """One to be driven by hand."""
    machine = SessionMachine()
    machine.start(window, (2, 2, 2), False)
    try:
        yield machine
        machine.holds()
    finally:
        machine.teardown()


def test_each_row_is_taken() -> None:
    SessionMachine.rows.clear()
    for event, state in ROWS:
        with machine() as by_hand:
            by_hand.take_row((event, state), GROUPS[0])
        assert row_of(event, state) in SessionMachine.rows, "the way to it does not lead there"
    with machine() as by_hand:
        by_hand.append(GROUPS[0], [2, 2], True, 0)
        by_hand.right_goes_while_away(GROUPS[0], [], 0)
    with machine(window=1) as by_hand:
        by_hand.append(GROUPS[0], [1, 1], True, 0)
        for topic in GROUPS:  # one is behind, the other is live
            by_hand.right_comes_or_goes(topic, False, 0)
    never = (rows_of(PACKET_ID) | rows_of(ENTRY) | rows_of(TAIL)) - SessionMachine.rows
    assert not never, "rows that nothing takes"


SETTINGS = settings(max_examples=200, stateful_step_count=40, deadline=None, derandomize=True)


@pytest.mark.timeout(400)  # time to find the smallest example
def test_a_session_keeps_its_laws() -> None:
    run_state_machine_as_test(SessionMachine, settings=SETTINGS)
