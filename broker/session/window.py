"""The window: the packet ids in use, and the messages sent with them.

Each packet id has one of the states of `laws.PACKET_ID`, and changes it only as that table says.
"""

from collections.abc import Iterator, Mapping

from broker.ports import PacketIds
from broker.session.laws import PACKET_ID, Event, IdState, after
from broker.session.packet_ids import IdSource
from broker.session.roles import Limits, Outbox
from broker.session.tail import Tail
from broker.wire.encoder import Outgoing, pubrel

_SENT = (
    IdState.FREE,
    after(PACKET_ID, Event.PUBLISH_1, IdState.FREE),
    after(PACKET_ID, Event.PUBLISH_2, IdState.FREE),
)
"""QoS -> the state of a packet id whose PUBLISH was sent."""
_AGAIN = PACKET_ID[Event.PUBLISH_AGAIN]
_FREE = IdState.FREE
_RELEASED = IdState.RELEASED


class InFlight:
    """The message of a packet id in use: an entry, with `tail` and `offset`, or another message, with
    `outgoing`.

    An unsent entry has no tail yet. A released message has no `outgoing` any more.
    """

    __slots__ = ("offset", "outgoing", "state", "tail")

    def __init__(self, state: IdState, tail: Tail | None, offset: int, outgoing: Outgoing | None) -> None:
        self.state = state
        self.tail = tail
        self.offset = offset
        self.outgoing = outgoing

    @property
    def qos(self) -> int:
        """1 or 2."""
        return 1 if self.state in {IdState.SENT_1, IdState.UNSENT_1} else 2

    @property
    def is_released(self) -> bool:
        """Whether only the PUBCOMP is awaited."""
        return self.state is IdState.RELEASED

    def become(self, state: IdState) -> None:
        """Set the state."""
        self.state = state
        if state is _RELEASED:  # [MQTT-4.3.3-1]: never sent again
            self.outgoing = None

    def keep(self, outgoing: Outgoing) -> None:
        """Set the message, to be sent again on a later connection."""
        self.outgoing = outgoing

    def follow(self, tail: Tail, offset: int) -> None:
        """Set the tail and the offset of an entry."""
        self.tail = tail
        self.offset = offset


class Window:
    """The packet ids of one session that are not free. `publish` adds at most `limits.max_inflight`;
    `restore` adds those that the last connection left, whatever the limit."""

    __slots__ = ("_in_flight", "_limits", "_outbox", "ids")

    def __init__(self, outbox: Outbox, limits: Limits, persistent: bool) -> None:
        self._outbox = outbox
        self._limits = limits
        self._in_flight: dict[int, InFlight] = {}
        self.ids = IdSource(persistent)

    def __len__(self) -> int:
        return len(self._in_flight)

    def __iter__(self) -> Iterator[tuple[int, InFlight]]:
        """The packet ids in use with their messages, in the order of assignment [MQTT-4.6.0-1]."""
        return iter(self._in_flight.items())

    @property
    def room(self) -> int:
        """How many more messages may be sent now."""
        if self._outbox.full or self.ids.is_wanted:
            return 0
        return max(0, self._limits.max_inflight - len(self._in_flight))

    def room_for(self, tail: Tail) -> int:
        """How many entries of this tail may be sent now. An entry that is sent again has its packet id
        already, so it needs no room in the window."""
        if self._outbox.full:
            return 0
        room = self.room
        if room and tail.qos == 2:
            room = min(room, self.ids.left(self._in_flight))
        return room or int(tail.position + 1 in tail.resend)

    def publish(self, outgoing: Outgoing, qos: int, tail: Tail | None = None, offset: int = 0) -> bool:
        """Send a message, or an entry of a tail, with QoS 1 or 2; false if the window is full or no packet
        id is reserved. Whether the outbox is full, the caller has asked."""
        in_flight = self._in_flight
        if len(in_flight) >= self._limits.max_inflight:
            return False
        packet_id = self.ids.take(in_flight, qos)
        if not packet_id:
            return False
        if tail is None:
            in_flight[packet_id] = InFlight(_SENT[qos], None, 0, outgoing)
        else:  # an entry can be read from its log again, so it is not kept
            in_flight[packet_id] = InFlight(_SENT[qos], tail, offset, None)
            tail.sent(offset)
        self._outbox.send_publish(outgoing.head(qos), packet_id.to_bytes(2, "big"), outgoing.payload)
        return True

    def publish_again(self, packet_id: int, outgoing: Outgoing) -> None:
        """Send an unsent message again, with the packet id and the QoS it had
        [MQTT-4.4.0-1] [MQTT-2.3.1-3]. It is kept, in case it must be sent once more."""
        sent = self.take(packet_id, _AGAIN)
        if sent is not None:
            sent.keep(outgoing)
            self._outbox.send(outgoing.packet(sent.qos, packet_id, dup=True))

    def publish_entry_again(self, packet_id: int, outgoing: Outgoing, tail: Tail, offset: int) -> None:
        """As `publish_again`, for an entry of a tail."""
        sent = self.take(packet_id, _AGAIN)
        if sent is not None:
            sent.follow(tail, offset)
            tail.await_acknowledgement(offset)
            self._outbox.send(outgoing.packet(sent.qos, packet_id, dup=True))

    def take(self, packet_id: int, change: Mapping[IdState, IdState]) -> InFlight | None:
        """Apply an event to a packet id. `change` is the event's row of `laws.PACKET_ID`. Returns the message
        of the packet id, or None if the event changes nothing."""
        sent = self._in_flight.get(packet_id)
        if sent is None or sent.state not in change:
            return None
        state = change[sent.state]
        if state is _FREE:
            del self._in_flight[packet_id]
        else:
            sent.become(state)
        return sent

    def lose(self, packet_id: int) -> None:
        """Give up an unsent message. For QoS 2 send a PUBREL: the receiver may hold the packet id."""
        sent = self.take(packet_id, PACKET_ID[Event.LOSE])
        if sent is not None and sent.is_released:
            self._outbox.send(pubrel(packet_id))

    def restore(self, packet_id: int, qos: int, released: bool) -> None:
        """Add a packet id of the last connection. If it was released, its PUBREL is sent again
        [MQTT-4.4.0-1]; otherwise it is unsent."""
        last = IdState.RELEASED if released else _SENT[qos]
        state = after(PACKET_ID, Event.RECONNECT, last)
        self._in_flight[packet_id] = InFlight(state, None, 0, None)
        if state is IdState.RELEASED:
            self._outbox.send(pubrel(packet_id))

    def reserve_ids(self) -> PacketIds | None:
        """See `IdSource.reserve`."""
        held = [packet_id for packet_id, sent in self._in_flight.items() if sent.qos == 2]
        return self.ids.reserve(self._in_flight, held)

    def hand_over(self, tail: Tail) -> None:
        """Give a tail the unacknowledged entries that an earlier tail of this connection sent."""
        for sent in self._in_flight.values():
            if sent.tail is not None and sent.tail.log == tail.log:
                sent.follow(tail, sent.offset)
                tail.await_acknowledgement(sent.offset)
                if sent.offset > tail.position:
                    tail.skip(sent.offset)
