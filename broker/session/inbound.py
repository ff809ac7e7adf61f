"""A client's publishes from their arrival to their answer: the receiving half of QoS 1 and 2
(MQTT 3.1.1, 4.3.2 and 4.3.3).

The packet id of a QoS 2 publish goes

    new -> committing -> received -> released, which is new again

new         nothing is known of it
committing  its PUBLISH was taken and is not done with
received    its PUBLISH is done with, stored or refused, and its PUBREL is awaited
earlier     it was `received` on an earlier connection of the session

This is what happens, and the state that follows:

==========  ================  ================  ================  ===================  ==========
            PUBLISH           PUBLISH with DUP  done with         PUBREL               connection
==========  ================  ================  ================  ===================  ==========
new         take, committing  take, committing                    PUBCOMP, new         new
committing  wait, committing  wait, committing  PUBREC, received  PUBCOMP, committing  new
received    PUBREC, received  PUBREC, received                    PUBCOMP, new         earlier
earlier     take, committing  PUBREC, earlier                     PUBCOMP, new         earlier
==========  ================  ================  ================  ===================  ==========

take        the publish goes to the pipeline
wait        it does not: its PUBREC comes when the first one is done with
PUBREC      an answer; so is PUBCOMP
connection  the client's next one

Laws:

1. From the first PUBLISH to the PUBREL a packet id is one publish, taken once [MQTT-4.3.3-2].
2. Of an earlier connection only what comes with DUP, as it must [MQTT-3.3.1-1], is the same publish:
   what is known of that connection may be from before a crash.
3. What is not done with has no answer, and ends with its connection: the client sends it again
   [MQTT-4.4.0-1].
4. PUBACK and PUBREC go out in the order of the publishes they are for [MQTT-4.6.0-2].
5. Every PUBREL is answered [MQTT-4.3.3-2], known or not: the client may have lost the PUBCOMP.
"""

import enum
from collections.abc import Iterable

from broker.session.roles import Outbox
from broker.wire import encoder
from broker.wire.packets import Publish

_OVERHEAD = 256
"""Bytes a publish takes while it is under way, beside its payload."""

Slot = list[bytes]
"""The place of an answer among the others; it holds one item, which is empty till it is due."""


class _State(enum.Enum):
    """See the module's table. A packet id that is new has none."""

    COMMITTING = enum.auto()
    RECEIVED = enum.auto()
    EARLIER = enum.auto()


# Names of their own, as a member costs five times as much to look up on its class.
_COMMITTING, _RECEIVED, _EARLIER = _State


class Inbound:
    """The publishes of one connection that are under way, and the packet ids of QoS 2."""

    __slots__ = ("_outbox", "_states", "unanswered", "uncommitted")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._states: dict[int, _State] = {}
        self.unanswered: list[Slot] = []
        """The answers that are not sent yet, in the order of the publishes."""
        self.uncommitted = 0
        """Bytes of the publishes that are not done with, those of QoS 0 included."""

    def is_repeated(self, packet: Publish) -> bool:
        """Whether a QoS 2 publish was taken before; if that one is done with, says PUBREC again."""
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
        """A publish is under way: counts it, and keeps its answer's place, which is for `done`."""
        self.uncommitted += len(packet.payload) + _OVERHEAD
        if not packet.qos:
            return None
        slot = [b""]
        self.unanswered.append(slot)
        return slot

    def done(self, packet: Publish, slot: Slot | None) -> None:
        """A publish is done with, stored or refused: answers it as soon as those before it are."""
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
        """The client has the PUBREC, and uses the packet id for something else from here on."""
        if self._states.get(packet_id) is not _COMMITTING:
            self._states.pop(packet_id, None)
        self._outbox.send(encoder.pubcomp(packet_id))

    # --- between connections ---------------------------------------------------------

    @property
    def received(self) -> list[int]:
        """Packet ids that wait for their PUBREL, for `restore` on the next connection."""
        return sorted(packet_id for packet_id, state in self._states.items() if state is not _COMMITTING)

    def restore(self, received: Iterable[int]) -> None:
        """Take up what the last connection left, before anything is published on this one."""
        self._states = dict.fromkeys(received, _EARLIER)
