"""The receiving half of QoS 1 and 2: drives the table in the module's docstring, cell by cell and
in random walks, and the order of the answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.session import inbound
from broker.session.inbound import Inbound, Slot
from broker.wire.packets import Ack, Publish, Type
from tests.unit.session_kit import Wire

EVENTS = ["PUBLISH", "PUBLISH with DUP", "outcome", "PUBREL", "connection"]

Cell = tuple[str | None, str]
"""The action, if there is one, and the next state."""


def read_table() -> dict[tuple[str, str], Cell]:
    """(state, event) -> cell, as the module's docstring says; an impossible event has none."""
    assert inbound.__doc__ is not None
    lines = inbound.__doc__.splitlines()
    above, between, below = (i for i, line in enumerate(lines) if line.startswith("==="))
    widths = [len(column) for column in lines[above].split()]

    def cells(line: str) -> list[str]:
        found = []
        for width in widths:
            found.append(line[:width].strip())
            line = line[width + 2 :]
        return found

    assert cells(lines[above + 1]) == ["", *EVENTS]
    table = {}
    for line in lines[between + 1 : below]:
        state, *columns = cells(line)
        for event, cell in zip(EVENTS, columns, strict=True):
            if cell:
                effect, _, after = cell.rpartition(", ")
                table[state, event] = (effect or None, after)
    return table


TABLE = read_table()
STATES = ["new", "committing", "received", "earlier"]
WAYS = {
    "new": [],
    "committing": ["PUBLISH"],
    "received": ["PUBLISH", "outcome"],
    "earlier": ["PUBLISH", "outcome", "connection"],
}


class Client:
    """A client's side of a session, over one connection after another."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.inbound = Inbound(self.wire)
        self.slots: dict[int, Slot | None] = {}

    def does(self, event: str, packet_id: int = 7) -> str | None:
        """Apply an event. Returns the action, in the words of the table."""
        if event in ("PUBLISH", "PUBLISH with DUP"):
            packet = Publish("t", b"x", 2, packet_id=packet_id, dup=event != "PUBLISH")
            if not self.inbound.is_repeated(packet):
                self.slots[packet_id] = self.inbound.expect(packet)
                assert self.wire.bytes == b""
                return "take"
            return self.answer(packet_id) or "wait"
        if event == "outcome":
            self.inbound.done(Publish("t", b"x", 2, packet_id=packet_id), self.slots.pop(packet_id))
        elif event == "PUBREL":
            self.inbound.pubrel(packet_id)
        else:
            received = self.inbound.received
            self.wire = Wire()
            self.inbound = Inbound(self.wire)
            self.inbound.restore(received)
            self.slots.clear()
        return self.answer(packet_id)

    def answer(self, packet_id: int) -> str | None:
        """The one packet that came, or None."""
        data, self.wire.bytes = self.wire.bytes, b""
        if not data:
            return None
        names = {b"\x50\x02": "PUBREC", b"\x70\x02": "PUBCOMP"}
        assert data[2:] == packet_id.to_bytes(2, "big")
        return names[data[:2]]

    def state(self, packet_id: int = 7) -> str:
        """The state as seen from outside. Publishes once without DUP, which ends the walk."""
        is_kept = packet_id in self.inbound.received
        match is_kept, self.does("PUBLISH", packet_id):
            case False, "take":
                return "new"
            case False, "wait":
                return "committing"
            case True, "PUBREC":
                return "received"
            case True, "take":
                return "earlier"
        raise AssertionError("a state that is not in the table")


def test_the_table_is_whole() -> None:
    assert {state for state, _ in TABLE} == set(STATES)
    assert {after for _, after in TABLE.values()} == set(STATES)
    cannot_be = {(state, event) for state in STATES for event in EVENTS} - set(TABLE)
    assert cannot_be == {(state, "outcome") for state in ("new", "received", "earlier")}


@pytest.mark.parametrize(("state", "event"), TABLE)
def test_each_cell_of_the_table(state: str, event: str) -> None:
    client = Client()
    for step in WAYS[state]:
        client.does(step)
    effect, after = TABLE[state, event]
    assert client.does(event) == effect
    assert client.state() == after


@pytest.mark.parametrize("state", STATES)
def test_the_ways_lead_to_their_states(state: str) -> None:
    client = Client()
    for step in WAYS[state]:
        client.does(step)
    assert client.state() == state


@given(st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(1, 3)), max_size=40))
def test_a_walk_goes_by_the_table(walk: list[tuple[str, int]]) -> None:
    """Several packet ids do not disturb each other. One gets its outcome at a time, in the order of
    the publishes, so that each answer is seen at once."""
    client = Client()
    states = dict.fromkeys((1, 2, 3), "new")
    for event, chosen in walk:
        packet_id = next(iter(client.slots), chosen) if event == "outcome" else chosen
        if (states[packet_id], event) not in TABLE:
            continue
        effect, after = TABLE[states[packet_id], event]
        assert client.does(event, packet_id) == effect
        states[packet_id] = after
        if event == "connection":
            states = {
                each: TABLE[state, event][1] if each != packet_id else after for each, state in states.items()
            }
        assert client.inbound.received == [i for i, s in states.items() if s in ("received", "earlier")]
    for packet_id, state in states.items():
        assert client.state(packet_id) == state


@given(
    st.lists(st.integers(0, 2), max_size=12).flatmap(
        lambda q: st.tuples(st.just(q), st.permutations(range(len(q))))
    )
)
def test_answers_come_in_the_order_of_the_publishes(case: tuple[list[int], list[int]]) -> None:
    """[MQTT-4.6.0-2], whichever gets its outcome first. QoS 0 has no answer and holds nothing back."""
    qualities, order = case
    wire = Wire()
    publishes = Inbound(wire)
    packets = [Publish("t", bytes(i), qos, packet_id=i + 1 if qos else 0) for i, qos in enumerate(qualities)]
    assert not any(publishes.is_repeated(packet) for packet in packets if packet.qos == 2)
    slots = [publishes.expect(packet) for packet in packets]
    assert publishes.uncommitted >= sum(range(len(packets)))
    answers = [
        (i, Ack(Type.PUBACK if qos == 1 else Type.PUBREC, i + 1)) for i, qos in enumerate(qualities) if qos
    ]
    finished: set[int] = set()
    sent: list[Ack] = []
    for i in order:
        publishes.done(packets[i], slots[i])
        finished.add(i)
        sent += wire.take()
        due = []
        for place, answer in answers:
            if place not in finished:
                break
            due.append(answer)
        assert sent == due
        assert len(publishes.unanswered) == len(answers) - len(due)
    assert publishes.uncommitted == 0


def test_a_repeat_is_answered_once_and_taken_once() -> None:
    client = Client()
    assert [client.does("PUBLISH"), client.does("PUBLISH with DUP"), client.does("PUBLISH")] == [
        "take",
        "wait",
        "wait",
    ]
    assert client.does("outcome") == "PUBREC"
    assert client.inbound.unanswered == []


def test_after_a_crash_a_packet_id_may_be_used_anew() -> None:
    """The restored state may be out of date: a publish without DUP is a new one. After it the packet id
    behaves as if nothing had been restored."""
    client = Client()
    client.inbound.restore([7, 9])
    assert client.does("PUBLISH") == "take"
    assert client.does("PUBLISH with DUP") == "wait"
    assert client.inbound.received == [9]
    assert client.does("connection") is None
    assert client.state() == "new"
