"""Session state and the delivery half of QoS 0, 1 and 2 (MQTT 3.1.1, chapter 4).

Messages come two ways. Entries of logs go by tails: nothing is queued, a session that cannot
take an entry now leaves the live stream and has it read from the log later. Messages of other
topics go by the window and, when it is full, a bounded queue.

The states of packet ids, entries and tails, and which follows which, stand in `laws`. They are kept
by the parts that a session puts together:

    offer_entry ─▶ Tail ──┐                         ┌──▶ outbox
                          ├──▶ Window (packet ids) ─┤
    offer ───▶ the queue ─┘    ▲                    └◀── puback, pubrec, pubcomp
                               │
    restore ─▶ Redeliveries ───┘   what earlier connections sent
"""

from collections import deque
from collections.abc import Callable

from broker.domain.subscription import Subscription
from broker.ports import Identity, QueuedMessage, SessionKey, SessionState
from broker.session.inbound import Inbound
from broker.session.laws import PACKET_ID, Event, TailState
from broker.session.logs import Logs
from broker.session.redelivery import Redeliveries
from broker.session.roles import Limits, Outbox, Watcher
from broker.session.tail import Tail
from broker.session.window import InFlight, Window
from broker.wire.encoder import Outgoing, pubrel

_PUBACK = PACKET_ID[Event.PUBACK]
_PUBREC = PACKET_ID[Event.PUBREC]
_PUBCOMP = PACKET_ID[Event.PUBCOMP]
_PARKED = TailState.PARKED


class Session:
    """One (user, client id), while connected."""

    __slots__ = (
        "_limits",
        "_moved",
        "_pending",
        "_waiter",
        "_watcher",
        "behind",
        "connected",
        "filters",
        "grants",
        "identity",
        "inbound",
        "key",
        "logs",
        "open_wildcards",
        "outbox",
        "parked",
        "persistent",
        "redeliveries",
        "tails",
        "window",
    )

    def __init__(
        self,
        key: SessionKey,
        identity: Identity,
        persistent: bool,
        outbox: Outbox,
        limits: Limits,
        watcher: "Watcher[Session]",
    ) -> None:
        self.key = key
        self.connected = True
        self.identity = identity
        self.persistent = persistent
        self.outbox = outbox
        self.filters: dict[str, Subscription] = {}
        self.grants: dict[str, int] = {}
        """Topic or wildcard filter in the routing tables -> QoS: what `filters` come to."""
        self.open_wildcards: frozenset[str] = frozenset()
        """Those of `grants` that are wildcards for topics outside the contract's table only."""
        self.window = Window(outbox, limits, persistent)
        self.logs = Logs()
        # Those of `logs`, as each push and each acknowledgement looks something up in them.
        self.tails = self.logs.tails
        self.parked = self.logs.parked
        self.behind = self.logs.behind
        self._moved = self.logs.moved
        self.redeliveries = Redeliveries(self.window, self.logs)
        self.inbound = Inbound(outbox)
        self._limits = limits
        self._watcher = watcher
        self._waiter: Callable[[], None] | None = None
        self._pending: deque[tuple[Outgoing, int]] | None = None

    # --- who asks for it -------------------------------------------------------------

    def grant(self, grants: dict[str, int], open_wildcards: frozenset[str]) -> None:
        """What the filters come to was worked out anew."""
        self.grants = grants
        self.open_wildcards = open_wildcards

    def disconnected(self) -> None:
        """The connection has ended: nothing is to be sent any more."""
        self.connected = False

    def when_room(self, waiter: Callable[[], None] | None) -> None:
        """Have `waiter` called each time there may be room again; None to stop that."""
        self._waiter = waiter

    # --- entries of logs -------------------------------------------------------------

    def offer_entry(self, topic: str, offset: int, outgoing: Outgoing) -> None:
        """A new entry of a subscribed log was committed: send it now, or leave it to the log."""
        try:
            tail = self.tails[topic]
        except KeyError:
            return
        outbox = self.outbox
        # Fast path: the tail is at the entry before, and neither window nor outbox is full.
        if tail.live and offset == tail.position + 1 and not outbox.full:
            if not (tail.qos and outgoing.qos):
                tail.advance(offset)
                outbox.send(outgoing.frame())
                return
            qos = tail.qos if tail.qos < outgoing.qos else outgoing.qos
            if self.window.publish(outgoing, qos, tail, offset):
                return
        if offset > tail.position:
            self.logs.missed(tail, offset)
            self._watcher.lagging(self)

    def add_tail(self, tail: Tail) -> None:
        """Start reading a log; the tail is behind until the reader has looked."""
        self.logs.follow(tail)
        self.redeliveries.hand_over(tail)
        self.window.hand_over(tail)

    def park_tail(self, topic: str) -> None:
        """Stop reading a log; should it be read again, it is from here."""
        tail = self.logs.park(topic)
        if tail is not None:
            self._lose([packet_id for packet_id in tail.resend.values() if packet_id])

    def finish_tail(self, topic: str, log: str) -> None:
        """The client has unsubscribed from a log. What an earlier connection has begun to send of it is
        completed [MQTT-3.10.4-3]: sent again, with the packet ids it had. Nothing else is sent."""
        self.logs.park(topic)
        offsets = self.redeliveries.unsent_of(log)
        if offsets:
            tail = Tail(topic, log, offsets[-1], 0)
            self.logs.finish(tail)
            self.redeliveries.hand_over(tail)
            self._watcher.lagging(self)

    def forget_lost(self) -> None:
        """Free the packet ids of entries of logs that may not be read now. Should the right come
        back, they are read anew: their cursors go back before them."""
        self._lose(self.redeliveries.unsent_outside({tail.log for tail in self.logs.read}))

    def give_up(self, tail: Tail, offset: int) -> None:
        """An entry cannot be sent again."""
        packet_id = tail.resend.pop(offset)
        if packet_id:
            self._lose([packet_id])

    def _lose(self, packet_ids: list[int]) -> None:
        if packet_ids:
            self.redeliveries.lose(packet_ids)
            self.refill()

    def room_for(self, tail: Tail) -> int:
        """How many entries of this tail may be sent now: see `Window.room_for`."""
        room = self.window.room_for(tail)
        if not room and self.window.ids.is_wanted:
            self._watcher.ids_wanted(self)
            room = self.window.room_for(tail)  # they may be there at once
        return room

    def send_entry(self, tail: Tail, offset: int, outgoing: Outgoing) -> None:
        """An entry was read from the log: the one after the tail's position, for which the caller has
        asked `room_for`, or one before it that is to be sent again."""
        packet_id = tail.resend.pop(offset, None) if tail.resend else None
        if packet_id is not None:
            if offset > tail.position:
                tail.advance(offset)
            self.redeliveries.read(tail, offset, outgoing, packet_id)
        elif qos := min(tail.qos, outgoing.qos):
            self.window.publish(outgoing, qos, tail, offset)
        else:
            tail.advance(offset)
            self.outbox.send(outgoing.frame())

    # --- other messages --------------------------------------------------------------

    def offer(self, outgoing: Outgoing, qos: int) -> None:
        """Send a message of a topic that is not a log, or queue it within bounds."""
        if not qos:
            if self.outbox.full:
                self._watcher.dropped("slow_consumer")
            else:
                self.outbox.send(outgoing.frame())
        elif self._pending or self.outbox.full or not self.window.publish(outgoing, qos):
            self._queue(outgoing, qos)

    def _queue(self, outgoing: Outgoing, qos: int) -> None:
        if self._pending is None:
            self._pending = deque()
        if len(self._pending) >= self._limits.max_queued:
            self._pending.popleft()
            self._watcher.dropped("queue_full")
        self._pending.append((outgoing, qos))
        self._ask_for_ids()

    def _ask_for_ids(self) -> None:
        if self.window.ids.is_wanted:
            self._watcher.ids_wanted(self)

    def refill(self) -> None:
        """There is room again: send what waited, then wake who waits for room."""
        pending = self._pending
        while pending and self.window.room and self.window.publish(*pending[0]):
            pending.popleft()
        self._ask_for_ids()
        if self._waiter is not None:
            self._waiter()

    # --- acknowledgements ------------------------------------------------------------

    def puback(self, packet_id: int) -> None:
        """4.3.2: the receiver has it. It may be late, or for a packet of an earlier connection."""
        sent = self.window.take(packet_id, _PUBACK)
        if sent is not None:
            self._done(packet_id, sent)

    def pubrec(self, packet_id: int) -> None:
        """4.3.3: the receiver has it; release it [MQTT-4.3.3-1]. An unknown packet id is released too,
        as its owner may have forgotten what this side has."""
        sent = self.window.take(packet_id, _PUBREC)
        if sent is not None and sent.tail is None:
            self.redeliveries.answered(packet_id)
        self.outbox.send(pubrel(packet_id))

    def pubcomp(self, packet_id: int) -> None:
        """4.3.3: done. Only now does a cursor pass it: a receiver may wait for its PUBREL."""
        sent = self.window.take(packet_id, _PUBCOMP)
        if sent is not None:
            self._done(packet_id, sent)

    def _done(self, packet_id: int, sent: InFlight) -> None:
        tail = sent.tail
        if tail is None:
            self.redeliveries.done(packet_id)
        else:
            tail.acknowledged(sent.offset)
            if tail.qos and tail.state is not _PARKED:
                if not self._moved:
                    self._watcher.moved(self)
                self._moved[tail.log] = tail  # where its cursor is, is asked twice a second
        if self._pending or self._waiter is not None:
            self.refill()

    # --- between connections ---------------------------------------------------------

    @property
    def counts(self) -> tuple[int, int]:
        """Messages in the window, and queued."""
        return len(self.window), len(self._pending or ())

    def snapshot(self) -> SessionState:
        """What must be kept for the next connection: a log's cursor is the last entry that was
        sent, as those that were not acknowledged are listed one by one."""
        inflight = self.redeliveries.snapshot(self.window)
        listed = {item.packet_id for item in inflight}
        queue = [_kept(packet_id, sent) for packet_id, sent in self.window if packet_id not in listed]
        queue += [_queued(outgoing, qos) for outgoing, qos in self._pending or ()]
        positions = self.logs.positions()
        packet_ids = self.window.ids.snapshot(at_end=not self.connected)
        return SessionState(dict(self.filters), positions, inflight, self.inbound.received, queue, packet_ids)

    def restore(self, state: SessionState) -> None:
        """Take up what the last connection left: resend what it had in its window
        [MQTT-4.4.0-1], then what was queued. Entries of logs follow as their tails are read."""
        self.filters = state.filters
        self.window.ids.restore(state.packet_ids)
        self.parked.update(state.cursors)
        self.inbound.restore(state.received)
        for item in state.inflight:
            self.redeliveries.restore(item)
        for message in state.queue:
            if not message.packet_id:
                self.offer(_outgoing(message), message.qos)
                continue
            self.window.restore(message.packet_id, message.qos, message.released)
            if not message.released:
                self.window.publish_again(message.packet_id, _outgoing(message))


# --- messages as they are kept ------------------------------------------------------------


def _outgoing(message: QueuedMessage) -> Outgoing:
    return Outgoing(message, message.retain)


def _queued(outgoing: Outgoing, qos: int, packet_id: int = 0) -> QueuedMessage:
    return QueuedMessage(
        outgoing.topic, outgoing.payload, qos, outgoing.retain, outgoing.properties, packet_id
    )


def _kept(packet_id: int, sent: InFlight) -> QueuedMessage:
    """A message of the window. Of one that is released only the packet id is left."""
    if sent.outgoing is None:
        return QueuedMessage("", b"", sent.qos, packet_id=packet_id, released=True)
    return _queued(sent.outgoing, sent.qos, packet_id)
