"""Session state and the delivery half of QoS 0, 1 and 2 (MQTT 3.1.1, chapter 4).

Messages come two ways. Entries of logs go by tails: nothing is queued, a session that cannot
take an entry now leaves the live stream and has it read from the log later. Messages of other
topics go by the window and, when it is full, a bounded queue.

Laws of the window, for each packet id:

    free --PUBLISH 1--> sent --PUBACK--> free
    free --PUBLISH 2--> sent --PUBREC--> released --PUBCOMP--> free
"""

from collections import deque
from collections.abc import Callable

from broker.domain.subscription import Subscription
from broker.ports import Identity, QueuedMessage, Redelivery, SessionKey, SessionState
from broker.session.inbound import Inbound
from broker.session.roles import Limits, Outbox, Watcher
from broker.session.tail import Tail
from broker.wire.encoder import Outgoing, pubrel


class _Sent:
    """A PUBLISH in the window: either an entry of a tail or another message."""

    __slots__ = ("offset", "outgoing", "qos", "released", "tail")

    def __init__(self, qos: int, tail: Tail | None, offset: int, outgoing: Outgoing | None) -> None:
        self.qos = qos
        self.tail = tail
        self.offset = offset
        self.outgoing = outgoing
        self.released = False


class Session:
    """One (user, client id), while connected."""

    __slots__ = (
        "_had",
        "_inflight",
        "_last_id",
        "_limits",
        "_moved",
        "_pending",
        "_places",
        "_unsent",
        "_watcher",
        "behind",
        "connected",
        "filters",
        "grants",
        "identity",
        "inbound",
        "key",
        "open_wildcards",
        "outbox",
        "parked",
        "persistent",
        "tails",
        "waiter",
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
        self.tails: dict[str, Tail] = {}
        self.parked: dict[str, int] = {}
        """Log -> cursor from the last connection, till the log is read again."""
        self.behind: dict[str, Tail] = {}
        """The tails that are not live."""
        self.inbound = Inbound(outbox)
        self.waiter: Callable[[], None] | None = None
        """Called when there may be room again."""
        self._moved: dict[str, Tail] = {}
        self._limits = limits
        self._watcher = watcher
        self._inflight: dict[int, _Sent] = {}
        self._pending: deque[tuple[Outgoing, int]] | None = None
        # Packet id -> (log, offset) of entries the last connection sent. Those of `_unsent` are to be
        # sent again; `_had` are places beyond a cursor that the receiver needs no more.
        self._places: dict[int, tuple[str, int]] = {}
        self._unsent: set[int] = set()
        self._had: set[tuple[str, int]] = set()
        self._last_id = 0

    # --- entries of logs -------------------------------------------------------------

    def offer_entry(self, topic: str, offset: int, outgoing: Outgoing) -> None:
        """A new entry of a subscribed log was committed: send it now, or leave it to the log."""
        tail = self.tails.get(topic)
        if tail is None:
            return
        qos = tail.qos if tail.qos < outgoing.qos else outgoing.qos
        # Fast path: the tail is at the entry before, and neither window nor outbox is full.
        if tail.live and offset == tail.position + 1 and not self.outbox.full:
            if not qos:
                tail.position = offset
                self.outbox.send(outgoing.frame())
                return
            if len(self._inflight) < self._limits.max_inflight:
                self._send(outgoing, qos, tail, offset)
                return
        if offset > tail.position:
            tail.head = max(tail.head, offset)
            tail.live = False
            self.behind[topic] = tail
            self._watcher.lagging(self)

    def add_tail(self, tail: Tail) -> None:
        """Start reading a log; the tail is behind until the reader has looked."""
        self.tails[tail.topic] = self.behind[tail.topic] = tail
        self.parked.pop(tail.log, None)
        for packet_id in self._unsent:
            log, offset = self._places[packet_id]
            if log == tail.log:
                tail.resend[offset] = packet_id
                tail.reported = min(tail.reported, offset - 1)
        for place in [place for place in self._had if place[0] == tail.log]:
            if place[1] > tail.position:
                tail.resend[place[1]] = 0
            else:
                self._had.discard(place)
        for sent in self._inflight.values():
            if sent.tail is not None and sent.tail.log == tail.log:
                # It was read before on this connection, and is under way.
                sent.tail = tail
                tail.await_acknowledgement(sent.offset)
                if sent.offset > tail.position:
                    tail.resend[sent.offset] = 0

    def park_tail(self, topic: str) -> None:
        """Stop reading a log; should it be read again, it is from here."""
        tail = self.tails.pop(topic, None)
        self.behind.pop(topic, None)
        if tail is None:
            return
        if tail.qos:
            self.parked[tail.log] = tail.position
        self._lose([packet_id for packet_id in tail.resend.values() if packet_id])

    def forget_lost(self) -> None:
        """Free the packet ids of entries of logs that may not be read now. Should the right come
        back, they are read anew: their cursors go back before them."""
        logs = {tail.log for tail in self.tails.values()}
        self._lose([packet_id for packet_id in self._unsent if self._places[packet_id][0] not in logs])

    def give_up(self, tail: Tail, offset: int) -> None:
        """An entry cannot be sent again."""
        packet_id = tail.resend.pop(offset)
        if packet_id:
            self._lose([packet_id])

    def _lose(self, packet_ids: list[int]) -> None:
        for packet_id in packet_ids:
            log, offset = self._places.pop(packet_id)
            self._unsent.discard(packet_id)
            if log in self.parked:
                self.parked[log] = min(self.parked[log], offset - 1)
            self._withdraw(packet_id)
        if packet_ids:
            self.refill()

    def _withdraw(self, packet_id: int) -> None:
        """Give up sending a message again. With QoS 2 the receiver may have it and hold the packet
        id (4.3.3), so it is released."""
        sent = self._inflight[packet_id]
        if sent.qos == 2:
            sent.released = True
            self.outbox.send(pubrel(packet_id))
        else:
            del self._inflight[packet_id]

    def caught_up(self, tail: Tail) -> None:
        """The log has nothing after the tail's position: from here on it gets pushes."""
        tail.live = True
        self.behind.pop(tail.topic, None)

    def send_entry(self, tail: Tail, offset: int, outgoing: Outgoing) -> None:
        """Send the entry after the tail's position, as read from the log; the caller has asked
        `room_for`."""
        qos = min(tail.qos, outgoing.qos)
        packet_id = tail.resend.pop(offset, None) if tail.resend else None
        if packet_id is not None:
            tail.position = offset
            if packet_id:
                self._send_again(tail, offset, outgoing, packet_id)
            else:
                self._had.discard((tail.log, offset))
        elif qos:
            self._send(outgoing, qos, tail, offset)
        else:
            tail.position = offset
            self.outbox.send(outgoing.frame())

    def resend_entry(self, tail: Tail, offset: int, outgoing: Outgoing) -> None:
        """Send again an entry before the tail's position."""
        packet_id = tail.resend.pop(offset)
        if packet_id:
            self._send_again(tail, offset, outgoing, packet_id)

    def _send_again(self, tail: Tail, offset: int, outgoing: Outgoing, packet_id: int) -> None:
        """[MQTT-4.4.0-1]: with the packet id it had, which is kept for it."""
        self._unsent.discard(packet_id)
        self._places.pop(packet_id, None)
        sent = self._inflight[packet_id]
        sent.tail = tail
        sent.offset = offset
        tail.await_acknowledgement(offset)
        self.outbox.send(outgoing.packet(sent.qos, packet_id, dup=True))

    @property
    def room(self) -> int:
        """How many more messages the window and the outbox take now."""
        return 0 if self.outbox.full else max(0, self._limits.max_inflight - len(self._inflight))

    def room_for(self, tail: Tail) -> int:
        """How many entries of this tail may be sent now. One that is sent again has its place."""
        room = self.room
        if not room and tail.position + 1 in tail.resend and not self.outbox.full:
            return 1
        return room

    # --- other messages --------------------------------------------------------------

    def offer(self, outgoing: Outgoing, qos: int) -> None:
        """Send a message of a topic that is not a log, or queue it within bounds."""
        if not qos:
            if self.outbox.full:
                self._watcher.dropped("slow_consumer")
            else:
                self.outbox.send(outgoing.frame())
        elif self._pending or self.room <= 0:
            self._queue(outgoing, qos)
        else:
            self._send(outgoing, qos, None, 0)

    def _queue(self, outgoing: Outgoing, qos: int) -> None:
        if self._pending is None:
            self._pending = deque()
        if len(self._pending) >= self._limits.max_queued:
            self._pending.popleft()
            self._watcher.dropped("queue_full")
        self._pending.append((outgoing, qos))

    def _send(self, outgoing: Outgoing, qos: int, tail: Tail | None, offset: int) -> None:
        packet_id = self._last_id % 65535 + 1
        inflight = self._inflight
        while packet_id in inflight:  # [MQTT-2.3.1-2]
            packet_id = packet_id % 65535 + 1
        self._last_id = packet_id
        # Only what may have to be sent again is kept, and an entry can be read again.
        inflight[packet_id] = _Sent(qos, tail, offset, outgoing if tail is None else None)
        if tail is not None:
            tail.sent(offset, qos)
        self.outbox.send_publish(outgoing.head(qos), packet_id.to_bytes(2, "big"), outgoing.payload)

    # --- acknowledgements ------------------------------------------------------------

    def puback(self, packet_id: int) -> None:
        """4.3.2: the receiver has it."""
        sent = self._inflight.get(packet_id)
        if sent is None or sent.qos != 1:
            return  # late, or for a packet of an earlier connection
        del self._inflight[packet_id]
        self._arrived(packet_id, sent)
        self.refill()

    def pubrec(self, packet_id: int) -> None:
        """4.3.3: the receiver has it; release it. An unknown id is released too, as its owner
        may have forgotten what this side has."""
        sent = self._inflight.get(packet_id)
        if sent is not None and sent.qos == 2 and not sent.released:
            sent.released = True
            sent.outgoing = None
            if packet_id in self._unsent:
                self._pass_over(packet_id)
        self.outbox.send(pubrel(packet_id))

    def pubcomp(self, packet_id: int) -> None:
        """4.3.3: done. Only now does a cursor pass it: a receiver may wait for its PUBREL."""
        sent = self._inflight.get(packet_id)
        if sent is not None and sent.released:
            del self._inflight[packet_id]
            self._arrived(packet_id, sent)
            self.refill()

    def _arrived(self, packet_id: int, sent: _Sent) -> None:
        if packet_id in self._unsent:
            self._pass_over(packet_id)
        self._places.pop(packet_id, None)
        tail = sent.tail
        if tail is not None:
            tail.acknowledged(sent.offset)
            if tail.qos and self.tails.get(tail.topic) is tail:
                if not self._moved:
                    self._watcher.moved(self)
                self._moved[tail.log] = tail  # where its cursor is, is asked twice a second

    @property
    def to_save(self) -> dict[str, int]:
        """Log -> cursor, of those that moved since they were last stored."""
        return {log: tail.cursor for log, tail in self._moved.items()}

    def saved(self) -> None:
        """The cursors are on their way to the store."""
        self._moved.clear()

    def _pass_over(self, packet_id: int) -> None:
        """An entry of an earlier connection was acknowledged before it was sent again."""
        self._unsent.discard(packet_id)
        log, offset = place = self._places[packet_id]
        tail = next((tail for tail in self.tails.values() if tail.log == log), None)
        if tail is not None:
            tail.resend.pop(offset, None)
            if offset <= tail.position:
                return
            tail.resend[offset] = 0
        self._had.add(place)

    def refill(self) -> None:
        """There is room again: send what waited, then wake who waits for room."""
        pending = self._pending
        while pending and self.room > 0:
            outgoing, qos = pending.popleft()
            self._send(outgoing, qos, None, 0)
        if self.waiter is not None:
            self.waiter()

    # --- between connections ---------------------------------------------------------

    @property
    def counts(self) -> tuple[int, int]:
        """Messages in the window, and queued."""
        return len(self._inflight), len(self._pending or ())

    def snapshot(self) -> SessionState:
        """What must be kept for the next connection: a log's cursor is the last entry that was
        sent, as those that were not acknowledged are listed one by one."""
        inflight = []
        queue = []
        for packet_id, sent in self._inflight.items():
            if packet_id in self._places:
                inflight.append(Redelivery(packet_id, *self._places[packet_id], sent.qos, sent.released))
            elif sent.tail is not None:
                inflight.append(Redelivery(packet_id, sent.tail.log, sent.offset, sent.qos, sent.released))
            elif sent.outgoing is not None:
                out = sent.outgoing
                queue.append(_queued(out, sent.qos, packet_id))
            else:
                queue.append(QueuedMessage("", b"", sent.qos, packet_id=packet_id, released=True))
        listed = {(item.log, item.offset) for item in inflight}
        inflight += [Redelivery(0, *place, 2, True) for place in sorted(self._had - listed)]
        for out, qos in self._pending or ():
            queue.append(_queued(out, qos))
        cursors = self.parked | {tail.log: tail.position for tail in self.tails.values() if tail.qos}
        return SessionState(dict(self.filters), cursors, inflight, self.inbound.received, queue)

    def restore(self, state: SessionState) -> None:
        """Take up what the last connection left: resend what it had in its window
        [MQTT-4.4.0-1], then what was queued. Entries of logs follow as their tails are read."""
        self.filters = state.filters
        self.parked = state.cursors
        self.inbound.restore(state.received)
        for item in state.inflight:
            self._restore(item)
        for message in state.queue:
            if message.packet_id == 0:
                self.offer(_outgoing(message), message.qos)
                continue
            sent = _Sent(message.qos, None, 0, None)
            self._inflight[message.packet_id] = sent
            if message.released:
                sent.released = True
                self.outbox.send(pubrel(message.packet_id))
            else:
                sent.outgoing = _outgoing(message)
                self.outbox.send(sent.outgoing.packet(message.qos, message.packet_id, dup=True))

    def _restore(self, item: Redelivery) -> None:
        place = (item.log, item.offset)
        if item.released:
            self._had.add(place)
        if not item.packet_id:
            return
        is_listed = place in self._places.values()
        # The packet id is taken till the entry is read and sent again, or released for good.
        sent = self._inflight[item.packet_id] = _Sent(item.qos, None, item.offset, None)
        if is_listed:
            self._withdraw(item.packet_id)
            return
        self._places[item.packet_id] = place
        if item.released:
            sent.released = True
            self.outbox.send(pubrel(item.packet_id))
        else:
            self._unsent.add(item.packet_id)


def _queued(outgoing: Outgoing, qos: int, packet_id: int = 0) -> QueuedMessage:
    return QueuedMessage(
        outgoing.topic, outgoing.payload, qos, outgoing.retain, outgoing.properties, packet_id
    )


def _outgoing(message: QueuedMessage) -> Outgoing:
    return Outgoing(message, message.retain)
