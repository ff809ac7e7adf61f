"""A session's state, and the sending side of QoS 0, 1 and 2 (MQTT 3.1.1, 4.3).

Entries of logs are sent through tails and never queued. If a session cannot take an entry now, its tail
leaves the live stream, and the entry is read from the log later. Messages of other topics are sent with
QoS 1 or 2 through the window and, when it is full, wait in a bounded queue; with QoS 0 they are dropped
when the outbox is full.

`laws` defines the states of packet ids, entries and tails. The parts of a session keep them:

    offer_entry ─▶ Tail ──┐                         ┌──▶ outbox
                          ├──▶ Window (packet ids) ─┤
    offer ───▶ the queue ─┘    ▲                    └◀── puback, pubrec, pubcomp
                               │
    restore ─▶ Redeliveries ───┘   entries that earlier connections sent
"""

from collections import deque
from collections.abc import Callable

from broker.domain.subscription import Subscription
from broker.ports import Identity, Lost, QueuedMessage, SessionKey, SessionState
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
        "_lost",
        "_moved",
        "_pending",
        "_pending_bytes",
        "_waiter",
        "_watcher",
        "behind",
        "connected",
        "epoch",
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
        "since",
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
        since: int = 0,
        epoch: int | None = None,
    ) -> None:
        """`since`: when it was connected, Unix ms. `epoch`: see `StateStore.claim`; None without other
        nodes."""
        self.key = key
        self.connected = True
        self.since = since
        self.epoch = epoch
        self.identity = identity
        self.persistent = persistent
        self.outbox = outbox
        self.filters: dict[str, Subscription] = {}
        self.grants: dict[str, int] = {}
        """Topic or wildcard filter in the routing tables -> QoS, as determined from `filters` and rights."""
        self.open_wildcards: frozenset[str] = frozenset()
        """The wildcards of `grants` that match open topics only (docs/topics.md)."""
        self.window = Window(outbox, limits, persistent)
        self.logs = Logs()
        # The same objects as in `logs`: pushes and acknowledgements are frequent, and save one look-up here.
        self.tails = self.logs.tails
        self.parked = self.logs.parked
        self.behind = self.logs.behind
        self._moved = self.logs.moved
        self._lost: dict[str, Lost] | None = None
        self.redeliveries = Redeliveries(self.window, self.logs)
        self.inbound = Inbound(outbox)
        self._limits = limits
        self._watcher = watcher
        self._waiter: Callable[[], None] | None = None
        self._pending: deque[tuple[Outgoing, int]] | None = None
        self._pending_bytes = 0

    # --- set from outside ------------------------------------------------------------

    def grant(self, grants: dict[str, int], open_wildcards: frozenset[str]) -> None:
        """Set `grants` and `open_wildcards`, after filters or rights changed."""
        self.grants = grants
        self.open_wildcards = open_wildcards

    def taken(self) -> None:
        """Another node has claimed the session: nothing of it is stored here any more."""
        self.persistent = False

    def disconnected(self) -> None:
        """The connection has ended: send nothing any more."""
        self.connected = False

    def when_room(self, waiter: Callable[[], None] | None) -> None:
        """Call `waiter` whenever there may be room again. None stops that."""
        self._waiter = waiter

    # --- entries of logs -------------------------------------------------------------

    def offer_entry(self, topic: str, offset: int, outgoing: Outgoing) -> None:
        """A new entry of a subscribed log was committed. Send it now, or leave the tail behind: then the
        entry is read from the log."""
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
        """Start to read a log. The tail is behind until the feeder has found nothing after its position."""
        self.logs.follow(tail)
        self.redeliveries.hand_over(tail)
        self.window.hand_over(tail)

    def park_tail(self, topic: str) -> None:
        """Stop reading a log, and keep the position in case it is read again."""
        tail = self.logs.park(topic)
        if tail is not None:
            self._lose([packet_id for packet_id in tail.resend.values() if packet_id])

    def take_lost(self, log: str) -> Lost | None:
        """What a restore of the store has lost of a log, once: for the client, which must be told."""
        return None if self._lost is None else self._lost.pop(log, None)

    def go_back(self, log: str, head: int) -> None:
        """The cursor of a parked log is beyond its head: go on from there. What was sent of the entries
        behind it is given up."""
        self.parked[log] = head
        self._lose(self.redeliveries.drop_after(log, head))

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
            if self._waiter is not None:  # what it waits for room for may wait for this
                self._waiter()

    def forget_lost(self) -> None:
        """Give up the unsent entries of logs that the session does not read any more. Cursors move back
        before them, so that they are read if the right to read them returns."""
        self._lose(self.redeliveries.unsent_outside({tail.log for tail in self.logs.read}))

    def give_up(self, tail: Tail, offset: int) -> None:
        """An entry that must be sent again is not in the log any more."""
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
        """Send an entry that was read from the log: the one after the tail's position, or an earlier one
        that must be sent again. For the former the caller must have found room by `room_for`."""
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

    def grown(self, tail: Tail, head: int) -> None:
        """The log of a tail is known to have entries up to `head`. Those that were not pushed are read from
        it."""
        if tail.live and head > tail.position and self.tails.get(tail.topic) is tail:
            self.logs.missed(tail, head)
            self._watcher.lagging(self)

    # --- other messages --------------------------------------------------------------

    def offer(self, outgoing: Outgoing, qos: int) -> None:
        """Send a message of a topic that is not a log, or queue it. If the queue is full, its oldest message
        is dropped; a QoS 0 message is not queued but dropped."""
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
        pending, limits = self._pending, self._limits
        pending.append((outgoing, qos))
        self._pending_bytes += _size_of(outgoing)
        room = min(limits.max_queued_bytes, self.outbox.queue_room)
        while len(pending) > limits.max_queued or (self._pending_bytes > room and len(pending) > 1):
            self._take_pending()
            self._watcher.dropped("queue_full")
        self.outbox.queued(self._pending_bytes)
        if self.window.ids.is_wanted:
            self._watcher.ids_wanted(self)

    def _take_pending(self) -> None:
        if self._pending:
            outgoing, _ = self._pending.popleft()
            self._pending_bytes -= _size_of(outgoing)

    def refill(self) -> None:
        """There may be room again: send queued messages, then call the waiter."""
        pending = self._pending
        if pending:
            while pending and self.window.room and self.window.publish(*pending[0]):
                self._take_pending()
            self.outbox.queued(self._pending_bytes)
        if self.window.ids.is_wanted:
            self._watcher.ids_wanted(self)
        if self._waiter is not None:
            self._waiter()

    # --- acknowledgements ------------------------------------------------------------

    def puback(self, packet_id: int) -> None:
        """The receiver has a QoS 1 message (4.3.2). A late or unknown PUBACK is ignored."""
        sent = self.window.take(packet_id, _PUBACK)
        if sent is not None:
            self._done(packet_id, sent)

    def pubrec(self, packet_id: int) -> None:
        """The receiver has a QoS 2 message (4.3.3). Send its PUBREL [MQTT-4.3.3-1], also for an unknown
        packet id: after a crash this side may have forgotten it, and the receiver waits for the PUBREL."""
        sent = self.window.take(packet_id, _PUBREC)
        if sent is not None and sent.tail is None:
            self.redeliveries.answered(packet_id)
        self.outbox.send(pubrel(packet_id))

    def pubcomp(self, packet_id: int) -> None:
        """A QoS 2 message is complete (4.3.3). Only now may a cursor pass it: until then the PUBREL may
        have to be sent again [MQTT-4.4.0-1]."""
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
                self._moved[tail.log] = tail  # its cursor is read when it is stored, twice a second
        if self._pending or self._waiter is not None:
            self.refill()

    # --- between connections ---------------------------------------------------------

    @property
    def counts(self) -> tuple[int, int]:
        """The number of messages in the window, and of queued ones."""
        return len(self.window), len(self._pending or ())

    @property
    def backlog(self) -> int:
        """How many messages wait for the client: sent and not acknowledged, queued, or entries of logs that
        it has not been sent, as far as the heads of the logs are known."""
        behind = sum(max(tail.head - tail.position, 0) for tail in self.behind.values())
        return sum(self.counts) + behind

    def snapshot(self) -> SessionState:
        """The state to store for the next connection. A log's cursor is the last entry sent, because the
        entries that were not acknowledged are listed one by one in `inflight`."""
        inflight = self.redeliveries.snapshot(self.window)
        listed = {item.packet_id for item in inflight}
        queue = [_kept(packet_id, sent) for packet_id, sent in self.window if packet_id not in listed]
        queue += [_queued(outgoing, qos) for outgoing, qos in self._pending or ()]
        positions = self.logs.positions()
        packet_ids = self.window.ids.snapshot(at_end=not self.connected)
        return SessionState(dict(self.filters), positions, inflight, self.inbound.received, queue, packet_ids)

    def restore(self, state: SessionState) -> None:
        """Set the state that the last connection stored. Send the messages of its window again
        [MQTT-4.4.0-1], then the queued ones. Entries of logs follow when their tails are read."""
        self.filters = state.filters
        self._lost = state.lost
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


# --- stored messages ----------------------------------------------------------------------


def _size_of(outgoing: Outgoing) -> int:
    """Bytes of a queued message, about: its topic and payload."""
    return len(outgoing.publication.topic) + len(outgoing.payload)


def _outgoing(message: QueuedMessage) -> Outgoing:
    return Outgoing(message, message.retain)


def _queued(outgoing: Outgoing, qos: int, packet_id: int = 0) -> QueuedMessage:
    return QueuedMessage(
        outgoing.publication.topic,
        outgoing.payload,
        qos,
        outgoing.retain,
        outgoing.publication.properties,
        packet_id,
    )


def _kept(packet_id: int, sent: InFlight) -> QueuedMessage:
    """A message of the window. A released one has only its packet id."""
    if sent.outgoing is None:
        return QueuedMessage("", b"", sent.qos, packet_id=packet_id, released=True)
    return _queued(sent.outgoing, sent.qos, packet_id)
