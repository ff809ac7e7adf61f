"""The surroundings of one session, written by hand: feeder, store, directory, registry and wire.

They report to the model (`session_model`) what the session sends and which events happen to it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import cast

from broker.delivery.feeder import Feeder
from broker.domain.message import Entry
from broker.metrics import Metrics
from broker.ports import Identity, MessageLog, Moved, Retained, Saved, SessionState, StateChange
from broker.session.laws import EntryState, Event, TailState
from broker.session.session import Session
from broker.session.tail import Tail
from broker.wire.decoder import Decoder
from broker.wire.packets import Ack, Packet, Publish, Type
from tests.subscribed import subscribed
from tests.unit.session_bench import Store
from tests.unit.session_kit import KEY, Limits, Wire, entry, log_of, number, through_store
from tests.unit.session_model import GROUPS, TOPICS, Client, Ledger, Place

RESERVED = 5
"""Packet ids in a range: few, so that ranges end."""


class ShortReads(Store):
    """Gives few entries at a time, as of long ones, and when it does there may be more."""

    async def read(self, log: str, after: int, limit: int, max_bytes: int) -> list[Entry]:
        entries = await super().read(log, after, min(limit, 2), max_bytes)
        await asyncio.sleep(0)
        return entries


class ClientWire(Wire):
    """Hands each packet over when it is sent, and keeps it until the client reads it."""

    def __init__(
        self,
        sent: Callable[[Packet], None],
        lagging: Callable[[Session], None],
        ids_wanted: Callable[[Session], None],
    ) -> None:
        super().__init__()
        self.unread: deque[Packet] = deque()
        self._sent = sent
        self._lagging = lagging
        self._ids_wanted = ids_wanted
        self._decoder = Decoder(1 << 20)

    def send(self, data: bytes) -> None:
        self._decoder.feed(data)
        while (packet := self._decoder.next_packet()) is not None:
            self._sent(packet)
            self.unread.append(packet)

    def lagging(self, session: Session) -> None:
        self._lagging(session)

    def ids_wanted(self, session: Session) -> None:
        self._ids_wanted(session)


async def _nothing_retained(_topic_filter: str, _after: str, _limit: int) -> list[Retained]:
    return []


class Node:
    """A node as registry, subscriptions and states make it, for one session."""

    def __init__(self, window: int, filters: dict[str, int], client: Client, ledger: Ledger) -> None:
        self.loop = asyncio.new_event_loop()
        self.store = ShortReads()
        self.uncommitted: list[StateChange] = []
        self.feeder = Feeder(cast(MessageLog, self.store), _nothing_retained, Metrics())
        self.limits = Limits(window)
        self.filters = filters
        self.client = client
        self.ledger = ledger
        # Topic -> where the right begins; the last offset that was pushed; what must arrive, as it is
        # published and subscribed to with QoS 1 or 2.
        self.rights = dict.fromkeys(TOPICS, 0)
        self.pushed = dict.fromkeys(TOPICS, 0)
        self.wanted: dict[str, set[int]] = {topic: set() for topic in TOPICS}
        self.do(lambda: self.open(SessionState(subscribed(filters), {}, [], [], [])), 20)
        self.save()

    def do(self, step: Callable[[], object], turns: int) -> None:
        async def job() -> None:
            done = step()
            if isinstance(done, Coroutine):
                await done
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(job())

    # --- logs and rights ----------------------------------------------------------------

    def head(self, topic: str) -> int:
        return len(self.store.logs.get(log_of(topic), ()))

    def commit_entry(self, topic: str, qos: int) -> None:
        self.store.logs.setdefault(log_of(topic), []).append(qos)
        if qos and self.filters[topic]:
            self.wanted[topic].add(self.head(topic))

    def push(self, topic: str) -> None:
        """Push the last entry."""
        if log := self.store.logs.get(log_of(topic)):
            self.ledger.look(self.session)
            self.pushed[topic] = len(log)
            self.session.offer_entry(topic, len(log), entry(topic, len(log), log[-1]))
            tail = self.session.tails.get(topic)
            if tail is not None and tail.position < len(log):
                self.ledger.tail(topic, Event.MISS)

    def change_right(self, topic: str, begins_here: bool) -> None:
        if topic in self.rights:
            del self.rights[topic]
        else:
            self.rights[topic] = floor = self.head(topic) if begins_here else 0
            self.wanted[topic] = {offset for offset in self.wanted[topic] if offset > floor}

    def may_come_again(self, topic: str, after: int) -> None:
        self.client.again.update((topic, offset) for offset in range(after + 1, self.head(topic) + 1))

    # --- the session --------------------------------------------------------------------

    def open(self, state: SessionState, follows: bool = True) -> None:
        self.wire = ClientWire(self._is_sent, self.feeder.lagging, self._reserve)
        self.last = dict.fromkeys(TOPICS, 0)
        self.newly_sent: set[Place] = set()
        self.confirmed: set[Place] = set()
        """Entries that the client has said it has, on this connection and since the log is read."""
        self.ledger.reconnect()
        self.session = Session(KEY, Identity("alice"), True, self.wire, self.limits, self.wire)
        self.session.window.ids.step = RESERVED
        self.session.restore(state)
        if follows:
            self.follow()
            self._lose()
            self.session.forget_lost()

    def _reserve(self, session: Session) -> None:
        """The range of packet ids is on disk at once, with all that was to be saved before."""
        ids = session.window.reserve_ids()
        assert ids is not None, "none is on its way"
        self.uncommitted.append(Moved(KEY, {}, ids))
        self.commit()
        session.window.ids.reserved(ids.reserved)
        session.refill()

    def follow(self) -> None:
        """Bring tails in line with rights, as `Subscriptions` does."""
        session = self.session
        self.ledger.look(session)
        for topic in [topic for topic in session.tails if topic not in self.rights]:
            self._lose()
            self.ledger.tail(topic, Event.PARK)
            assert self.ledger.tails.pop(topic) is TailState.PARKED
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
            self.ledger.tail(topic, Event.FOLLOW)
            self.confirmed = {place for place in self.confirmed if place[0] != topic}
            session.add_tail(Tail(topic, log, position, qos))
        if session.behind:
            self.feeder.lagging(session)

    def _lose(self) -> None:
        """An entry cannot be sent again without the right to read it: the cursor moves back before it."""
        for topic, offset in self.ledger.lose(self.rights):
            self.may_come_again(topic, offset - 1)
            if not self.filters[topic]:
                self.wanted[topic].discard(offset)

    def _is_sent(self, packet: Packet) -> None:
        if isinstance(packet, Ack):
            assert packet.type == Type.PUBREL
            self.ledger.release(packet.packet_id)
            return
        assert isinstance(packet, Publish)
        topic, offset = packet.topic, number(packet)
        assert topic in self.rights, "sent without the right to it"
        assert offset > self.last[topic], "out of order, or twice"
        assert (topic, offset) not in self.confirmed, "sent again, but it was acknowledged"
        earlier = {(topic, n) for n in self.wanted[topic] if n < offset}
        ledger = self.ledger
        assert ledger.entries.get((topic, offset)) is not EntryState.HAD, "the receiver has had it"
        assert earlier <= self.newly_sent | ledger.acknowledged | ledger.released, "skipped"
        self.last[topic] = offset
        self.newly_sent.add((topic, offset))
        if packet.qos:
            ledger.publish(packet)

    def read(self, count: int) -> None:
        """The client reads."""
        for _ in range(min(count, len(self.wire.unread))):
            self.client.read(self.wire.unread.popleft())

    def take(self, kind: Type, packet_id: int) -> None:
        """An acknowledgement of the client arrives."""
        session = self.session
        self.confirmed |= self.ledger.confirmed_by(kind, packet_id)
        self.ledger.answer(kind, packet_id)
        answers = {Type.PUBACK: session.puback, Type.PUBREC: session.pubrec, Type.PUBCOMP: session.pubcomp}
        answers[kind](packet_id)

    def end(self) -> None:
        self.ledger.look(self.session)
        self.session.disconnected()
        self.feeder.forget(self.session)
        self.wire.unread.clear()

    def disconnect(self) -> None:
        self.end()
        self.uncommitted.append(Saved(KEY, self.session.snapshot(), 0))

    # --- the store ----------------------------------------------------------------------

    def save(self) -> None:
        """On SUBSCRIBE, which is answered when this is on disk."""
        self.session.logs.saved()
        self.uncommitted.append(Saved(KEY, self.session.snapshot(), 0))
        self.commit()

    def save_moved(self) -> None:
        """Twice a second; new packet ids with it, which may be used once that is on disk."""
        window = self.session.window
        ids = window.reserve_ids() if window.ids.is_low else None
        self.uncommitted.append(Moved(KEY, self.session.logs.to_save, ids))
        self.session.logs.saved()
        if ids is not None:
            self.commit()
            window.ids.reserved(ids.reserved)

    def commit(self) -> None:
        for change in self.uncommitted:
            self.store._apply(change)
        self.uncommitted.clear()

    def load(self) -> SessionState:
        self.commit()
        return through_store(self.store.sessions[KEY])
