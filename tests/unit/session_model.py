"""A model of a persistent session, driven by the tables of `broker.session.laws`.

`Ledger` tracks the states of those tables from the packets on the wire: the packet ids in use and their
entries, the states of entries, the live tails. `Client` reads, delivers and acknowledges.
"""

from collections import Counter

import msgspec

from broker.ports import SessionState
from broker.session.laws import (
    ENTRY,
    PACKET_ID,
    TAIL,
    EntryState,
    Event,
    IdState,
    State,
    Table,
    TailState,
    after,
)
from broker.session.session import Session
from broker.wire.packets import Ack, Packet, Publish, Type
from tests.unit.session_kit import (
    INBOX,
    log_of,
    number,
)

ONE, TWO = "groups/one", "groups/two"
TOPICS = (INBOX, ONE, TWO)
GROUPS = (ONE, TWO)
"""Topics whose rights are granted and lost."""
NAMES = {log_of(topic): topic for topic in TOPICS}

Place = tuple[str, int]
"""Topic and offset."""
Row = tuple[str, str, str]
"""Kind of state, event, state."""

UNSENT = {1: IdState.UNSENT_1, 2: IdState.UNSENT_2}
QOS_2 = {IdState.SENT_2, IdState.UNSENT_2, IdState.RELEASED}


def row_of(event: Event, state: State) -> Row:
    return type(state).__name__, event.name, state.name


def rows_of(table: Table[State]) -> set[Row]:
    return {row_of(event, state) for event, row in table.items() for state in row}


class Taken(msgspec.Struct):
    """What a packet id stands for. `lost`: the right to the entry went before it could be sent again,
    and only the packet id is left to be released."""

    topic: str
    offset: int
    state: IdState
    lost: bool = False


class Exchange(msgspec.Struct):
    """One that is open, from PUBLISH to PUBACK or PUBCOMP. `released`: PUBREL was sent on this
    connection."""

    qos: int
    released: bool = False

    def is_ended_by(self, kind: Type) -> bool:
        return self.released if kind == Type.PUBCOMP else kind == Type.PUBACK and self.qos == 1


class Ledger:
    """What the wire said. `rows` collects the rows of the tables that were taken."""

    def __init__(self, rows: set[Row]) -> None:
        self.rows = rows
        self.ids: dict[int, Taken] = {}
        self.open: dict[int, Exchange] = {}
        """As above, but from the specification alone and not from the tables."""
        self.entries: dict[Place, EntryState] = {}
        self.tails: dict[str, TailState] = {}
        self.acknowledged: set[Place] = set()

    def _step(self, table: Table[State], event: Event, state: State) -> State:
        if state in table[event]:
            self.rows.add(row_of(event, state))
        return after(table, event, state)

    def _entry(self, place: Place, event: Event) -> None:
        self.entries[place] = self._step(ENTRY, event, self.entries.get(place, EntryState.PLAIN))

    def tail(self, topic: str, event: Event) -> None:
        """Something happened to a tail."""
        self.tails[topic] = self._step(TAIL, event, self.tails.get(topic, TailState.PARKED))

    def reconnect(self) -> None:
        """The session continues on a new connection."""
        had = [place for place, state in self.entries.items() if state is EntryState.HAD]
        self.entries = {}
        self.tails = {}
        for exchange in self.open.values():
            exchange.released = False
        for taken in self.ids.values():
            taken.state = self._step(PACKET_ID, Event.RECONNECT, taken.state)
            if not taken.lost:
                is_had = taken.state is IdState.RELEASED
                event = Event.RESTORE_HAD if is_had else Event.RESTORE_UNSENT
                self._entry((taken.topic, taken.offset), event)
        for place in had:
            self._entry(place, Event.RESTORE_HAD)

    def restart(self, state: SessionState) -> None:
        """The node crashed: only the stored state is left."""
        self.ids = {m.packet_id: Taken("", 0, IdState.RELEASED, lost=True) for m in state.queue}
        self.entries = {}
        for item in state.inflight:
            place = (NAMES[item.log], item.offset)
            sent = {1: IdState.SENT_1, 2: IdState.SENT_2}[item.qos]
            if item.packet_id:
                self.ids[item.packet_id] = Taken(*place, IdState.RELEASED if item.released else sent)
            else:
                self.entries[place] = EntryState.HAD
        kept = [*state.queue, *state.inflight]
        self.open = {item.packet_id: Exchange(item.qos) for item in kept if item.packet_id}

    def publish(self, packet: Publish) -> None:
        """The session sent a PUBLISH of QoS 1 or 2."""
        topic, offset = place = packet.topic, number(packet)
        packet_id = packet.packet_id
        taken = self.ids.get(packet_id)
        if packet.dup:
            assert taken == Taken(topic, offset, UNSENT[packet.qos]), "not what the packet id stands for"
            taken.state = self._step(PACKET_ID, Event.PUBLISH_AGAIN, taken.state)
            self._entry(place, Event.READ)
        else:
            assert packet_id not in self.open, "one packet id for two messages"
            self.open[packet_id] = Exchange(packet.qos)
            state = self._step(PACKET_ID, Event[f"PUBLISH_{packet.qos}"], IdState.FREE)
            self.ids[packet_id] = Taken(topic, offset, state)

    def release(self, packet_id: int) -> None:
        """The session sent a PUBREL."""
        exchange = self.open.get(packet_id)
        if exchange is not None and exchange.qos == 2:
            exchange.released = True
        taken = self.ids.get(packet_id)
        if taken is not None and taken.state in QOS_2:
            assert taken.state is IdState.RELEASED, "the receiver has not said that it has it"

    def means_nothing(self, kind: Type, packet_id: int) -> bool:
        """Whether an answer changes nothing."""
        taken = self.ids.get(packet_id)
        return taken is None or taken.state not in PACKET_ID[Event[kind.name]]

    def confirmed_by(self, kind: Type, packet_id: int) -> set[Place]:
        """The entry that the client acknowledges. A lost one is read again, and sent again."""
        taken = self.ids.get(packet_id)
        if taken is None or taken.lost or kind != (Type.PUBREC if taken.state in QOS_2 else Type.PUBACK):
            return set()
        return {(taken.topic, taken.offset)}

    def answer(self, kind: Type, packet_id: int) -> None:
        """The client answers."""
        if packet_id in self.open and self.open[packet_id].is_ended_by(kind):
            del self.open[packet_id]
        if self.means_nothing(kind, packet_id):
            return
        taken = self.ids[packet_id]
        place = (taken.topic, taken.offset)
        if taken.state in UNSENT.values():
            self._entry(place, Event.ANSWER)
        taken.state = self._step(PACKET_ID, Event[kind.name], taken.state)
        if taken.state is IdState.FREE:
            del self.ids[packet_id]
            if not taken.lost:
                self.acknowledged.add(place)

    def lose(self, rights: dict[str, int]) -> list[Place]:
        """What is to be sent again cannot be without a right; returns the places."""
        lost = []
        for packet_id, taken in list(self.ids.items()):
            if taken.topic in rights or taken.state not in UNSENT.values():
                continue
            if self.open[packet_id].qos == 1:
                del self.open[packet_id]
            taken.lost = True
            taken.state = self._step(PACKET_ID, Event.LOSE, taken.state)
            if taken.state is IdState.FREE:
                del self.ids[packet_id]
            lost.append((taken.topic, taken.offset))
            self._entry(lost[-1], Event.LOSE)
        return lost

    def look(self, session: Session) -> None:
        """Record what the wire does not show: the positions of the readers."""
        for place, state in list(self.entries.items()):
            tail = session.tails.get(place[0])
            if state is EntryState.HAD and tail is not None and tail.position >= place[1]:
                self._entry(place, Event.READ)
        for topic in session.tails.keys() - session.behind.keys():
            self.tail(topic, Event.CATCH_UP)

    def agrees(self, session: Session) -> None:
        """The session's states are these, and the wire has said so."""
        released = {i for i, taken in self.ids.items() if taken.state is IdState.RELEASED}
        assert released == {i for i, exchange in self.open.items() if exchange.released}
        assert {i: sent.state for i, sent in session.window} == {i: t.state for i, t in self.ids.items()}
        assert {topic: tail.state for topic, tail in session.tails.items()} == self.tails
        assert all(tail.live == (tail.state is TailState.LIVE) for tail in session.tails.values())
        for (topic, offset), state in self.entries.items():
            assert session.redeliveries.state((log_of(topic), offset)) is state

    @property
    def under_way(self) -> set[Place]:
        return {(taken.topic, taken.offset) for taken in self.ids.values() if not taken.lost}

    @property
    def released(self) -> set[Place]:
        released = [taken for taken in self.ids.values() if taken.state is IdState.RELEASED]
        return {(taken.topic, taken.offset) for taken in released if not taken.lost}


class Client:
    """4.3.3 lets it hand a message of QoS 2 on at PUBLISH or, `delivers_late`, at PUBREL."""

    def __init__(self, delivers_late: bool) -> None:
        self.delivers_late = delivers_late
        self.held: dict[int, Place] = {}
        self.answers: dict[int, Type] = {}
        self.had: Counter[Place] = Counter()
        self.had_as_2: Counter[Place] = Counter()
        self.again: Counter[Place] = Counter()
        """How many times more than once an entry may be delivered with QoS 2."""

    def read(self, packet: Packet) -> None:
        packet_id = packet.packet_id
        if isinstance(packet, Ack):
            held = self.held.pop(packet_id, None)
            if held is not None and self.delivers_late:
                self._deliver(held, 2)
            if self.answers.get(packet_id) != Type.PUBACK:
                self.answers[packet_id] = Type.PUBCOMP
            return
        assert isinstance(packet, Publish)
        assert packet.dup or packet_id not in self.held, "the client takes it for a repetition"
        place = (packet.topic, number(packet))
        if packet.qos == 1:
            self._deliver(place, 1)
            self.answers[packet_id] = Type.PUBACK
        elif packet.qos == 2:
            self.answers[packet_id] = Type.PUBREC
            if self.delivers_late:
                self.held[packet_id] = place
            elif packet_id not in self.held:
                self.held[packet_id] = place
                self._deliver(place, 2)

    def _deliver(self, place: Place, qos: int) -> None:
        self.had[place] += 1
        self.had_as_2[place] += qos == 2
        assert self.had_as_2[place] <= 1 + self.again[place], "QoS 2, but twice"

    def reconnect(self, answers: bool) -> None:
        """It answers PUBREL only when that is sent again, and the rest if it `answers` at all."""
        late = {packet_id: kind for packet_id, kind in self.answers.items() if kind != Type.PUBCOMP}
        self.answers = late if answers else {}

    def node_died(self) -> None:
        """What it holds it keeps (4.3.3): the node must not use those packet ids for anything else."""
        self.answers.clear()
