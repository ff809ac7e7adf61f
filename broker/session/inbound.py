"""A client's publishes from arrival to acknowledgement: the receiving side of QoS 1 and 2
(MQTT 3.1.1, 4.3.2 and 4.3.3).

The states of the packet id of a QoS 2 publish:

    new -> committing -> received -> released, which is new again

new         not in use
committing  its PUBLISH was passed to the pipeline, and has no outcome yet
received    its PUBLISH has an outcome (stored or refused), and its PUBREL is awaited
earlier     it was `received` on an earlier connection of the session

Each cell has the action, if there is one, and the next state:

==========  ================  ================  ================  ===================  ==========
            PUBLISH           PUBLISH with DUP  outcome           PUBREL               connection
==========  ================  ================  ================  ===================  ==========
new         take, committing  take, committing                    PUBCOMP, new         new
committing  wait, committing  wait, committing  PUBREC, received  PUBCOMP, committing  new
received    PUBREC, received  PUBREC, received                    PUBCOMP, new         earlier
earlier     take, committing  PUBREC, earlier                     PUBCOMP, new         earlier
==========  ================  ================  ================  ===================  ==========

take        pass the publish to the pipeline
wait        do nothing: the PUBREC follows the outcome of the first PUBLISH
PUBREC      send a PUBREC; PUBCOMP likewise
connection  event: the session continues on a new connection

Laws:

1. From the first PUBLISH to the PUBREL a packet id stands for one publish, which is taken once
   [MQTT-4.3.3-2].
2. A PUBLISH repeats one of an earlier connection only if it has the DUP flag, which a repeat must have
   [MQTT-3.3.1-1]. Without it, it is a new publish: after a crash the stored packet ids may be out of date.
3. A publish without an outcome has no answer, and is forgotten with its connection: the client sends
   it again [MQTT-4.4.0-1].
4. PUBACKs and PUBRECs are sent in the order of their publishes [MQTT-4.6.0-2].
5. Every PUBREL is answered [MQTT-4.3.3-2], even if its packet id is unknown: the client may have missed
   the PUBCOMP.
"""

import enum
from collections.abc import Iterable

from broker.session.roles import Outbox
from broker.wire import encoder
from broker.wire.packets import Publish

_OVERHEAD = 256
"""The memory of a publish without an outcome, beside its payload, in bytes."""

Slot = list[bytes]
"""The place of one answer in the order of answers: a list of one item, empty until the outcome is known."""


class _State(enum.Enum):
    """See the table of the module. A new packet id has no state."""

    COMMITTING = enum.auto()
    RECEIVED = enum.auto()
    EARLIER = enum.auto()


# As module globals, because looking up a member on its enum class costs five times as much.
_COMMITTING, _RECEIVED, _EARLIER = _State


class Inbound:
    """The publishes of one connection that have no outcome yet, and the packet ids of QoS 2."""

    __slots__ = ("_outbox", "_states", "unanswered", "uncommitted")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._states: dict[int, _State] = {}
        self.unanswered: list[Slot] = []
        """The places of the answers not sent yet, in the order of their publishes."""
        self.uncommitted = 0
        """Bytes of the publishes without an outcome, those of QoS 0 included."""

    def is_repeated(self, packet: Publish) -> bool:
        """Whether a QoS 2 publish was taken before. If that one has its outcome, sends the PUBREC again."""
        packet_id = packet.packet_id
        state = self._states.get(packet_id)
        if state is _COMMITTING:
            return True
        if state is _RECEIVED or (state is _EARLIER and packet.dup):
            self._outbox.send(encoder.pubrec(packet_id))
            return True
        self._states[packet_id] = _COMMITTING
        return False

    def expect(self, packet: Publish) -> Slot | None:
        """Count a publish, and reserve the place of its answer. Returns the place, to be passed to `done`;
        None for QoS 0."""
        self.uncommitted += len(packet.payload) + _OVERHEAD
        if not packet.qos:
            return None
        slot = [b""]
        self.unanswered.append(slot)
        return slot

    def done(self, packet: Publish, slot: Slot | None) -> None:
        """A publish was stored or refused: answer it once all earlier ones are answered [MQTT-4.6.0-2]."""
        self.uncommitted -= len(packet.payload) + _OVERHEAD
        if slot is None:
            return
        packet_id = packet.packet_id
        if packet.qos == 1:
            slot[0] = encoder.puback(packet_id)
        else:
            self._states[packet_id] = _RECEIVED
            slot[0] = encoder.pubrec(packet_id)
        unanswered = self.unanswered
        while unanswered and unanswered[0][0]:
            self._outbox.send(unanswered.pop(0)[0])

    def pubrel(self, packet_id: int) -> None:
        """The client has received the PUBREC, and may use the packet id for another message now."""
        if self._states.get(packet_id) is not _COMMITTING:
            self._states.pop(packet_id, None)
        self._outbox.send(encoder.pubcomp(packet_id))

    # --- between connections ---------------------------------------------------------

    @property
    def received(self) -> list[int]:
        """The packet ids that wait for their PUBREL, to be passed to `restore` on the next connection."""
        return sorted(packet_id for packet_id, state in self._states.items() if state is not _COMMITTING)

    def restore(self, received: Iterable[int]) -> None:
        """Set the packet ids `received` on the last connection. Call it before any publish of this one."""
        self._states = dict.fromkeys(received, _EARLIER)
