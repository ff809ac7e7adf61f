"""Outgoing messages: three small state machines, as tables, and the laws they follow.

A packet id (MQTT 3.1.1, 4.3 and 4.4):

    FREE --PUBLISH 1--> SENT_1 --PUBACK--> FREE
    FREE --PUBLISH 2--> SENT_2 --PUBREC--> RELEASED --PUBCOMP--> FREE

1. A packet id is assigned when it is free, and stands for one message until it is free again
   [MQTT-2.3.1-2] [MQTT-2.3.1-4].
2. A packet id of QoS 1 is freed only by PUBACK [MQTT-4.3.2-1], one of QoS 2 only by PUBREC and then
   PUBCOMP [MQTT-4.3.3-1].
3. On a new connection every message that was sent and not acknowledged is sent again, with the same
   packet id [MQTT-4.4.0-1] [MQTT-2.3.1-3]. An entry must be read from its log first; until then it is
   unsent. Its acknowledgement may come before that, if the client received it on the earlier connection.
4. A released message is never sent again [MQTT-4.3.3-1]; its PUBREL is [MQTT-4.4.0-1].
5. An unsent entry may become impossible to send, because the right to read it was lost. Then it gives
   up its packet id. One of QoS 1 is free. One of QoS 2 is released, because the client may hold it (4.3.3).

An entry of a log that an earlier connection sent:

6. The reader sends every entry it reaches, except those that the receiver already has. The state of an
   entry is dropped when the reader has passed it, unless the entry must be sent again.

A tail, which is a session's place in one log:

7. A live tail sends the next entry when it is pushed. If it misses one it is behind, and reads the log
   until there is nothing after its position. No push may overtake the log [MQTT-4.6.0-6].

A table gives, for each event, the next state of each state that the event changes. In all other states
the event changes nothing: acknowledgements may come late, twice, or for an unknown packet id.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, auto
from typing import Final, TypeVar


class IdState(IntEnum):  # integers: each message looks states up, and their hash is cheap
    """The states of a packet id. The digit is the QoS; released is QoS 2."""

    FREE = auto()
    SENT_1 = auto()
    """Sent, waits for PUBACK."""
    SENT_2 = auto()
    """Sent, waits for PUBREC."""
    UNSENT_1 = auto()
    """Sent by an earlier connection, must be sent again."""
    UNSENT_2 = auto()
    RELEASED = auto()
    """The receiver has the message; waits for PUBCOMP."""


class EntryState(IntEnum):
    """The states of an entry that is not in the window."""

    PLAIN = auto()
    """The default: it is sent when the reader reaches it."""
    UNSENT = auto()
    """Sent by an earlier connection, must be sent again."""
    HAD = auto()
    """The receiver has it, and the reader has not passed it."""


class TailState(IntEnum):
    """The states of a tail."""

    PARKED = auto()
    """The session does not read the log."""
    BEHIND = auto()
    """Entries are read from the log."""
    LIVE = auto()
    """Entries are sent as they are pushed."""


class Event(Enum):
    """The events of the three state machines."""

    PUBLISH_1 = auto()
    """A message is sent with QoS 1."""
    PUBLISH_2 = auto()
    PUBACK = auto()
    PUBREC = auto()
    PUBCOMP = auto()
    RECONNECT = auto()
    """The session continues on a new connection."""
    PUBLISH_AGAIN = auto()
    """The message is sent again, with DUP [MQTT-3.3.1-1]."""
    LOSE = auto()
    """The message cannot be sent again: the right to read it is lost, or the entry is gone."""

    RESTORE_UNSENT = auto()
    """An earlier connection sent the entry, and got no acknowledgement."""
    RESTORE_HAD = auto()
    """The receiver acknowledged the entry on an earlier connection."""
    ANSWER = auto()
    """PUBACK or PUBREC arrived before the entry was sent again."""
    READ = auto()
    """The reader reaches the entry, or starts after it."""

    FOLLOW = auto()
    """The session starts to read the log."""
    MISS = auto()
    """An entry is pushed that cannot be sent now."""
    CATCH_UP = auto()
    """The log has nothing after the position of the tail."""
    PARK = auto()
    """The session stops reading the log."""


State = TypeVar("State", bound=IntEnum)
Table = Mapping[Event, Mapping[State, State]]

PACKET_ID: Final[Table[IdState]] = {
    Event.PUBLISH_1: {IdState.FREE: IdState.SENT_1},
    Event.PUBLISH_2: {IdState.FREE: IdState.SENT_2},
    Event.PUBACK: {IdState.SENT_1: IdState.FREE, IdState.UNSENT_1: IdState.FREE},
    Event.PUBREC: {IdState.SENT_2: IdState.RELEASED, IdState.UNSENT_2: IdState.RELEASED},
    Event.PUBCOMP: {IdState.RELEASED: IdState.FREE},
    Event.RECONNECT: {IdState.SENT_1: IdState.UNSENT_1, IdState.SENT_2: IdState.UNSENT_2},
    Event.PUBLISH_AGAIN: {IdState.UNSENT_1: IdState.SENT_1, IdState.UNSENT_2: IdState.SENT_2},
    Event.LOSE: {IdState.UNSENT_1: IdState.FREE, IdState.UNSENT_2: IdState.RELEASED},
}

ENTRY: Final[Table[EntryState]] = {
    Event.RESTORE_UNSENT: {EntryState.PLAIN: EntryState.UNSENT},
    Event.RESTORE_HAD: {EntryState.PLAIN: EntryState.HAD},
    Event.ANSWER: {EntryState.UNSENT: EntryState.HAD},
    Event.READ: {EntryState.UNSENT: EntryState.PLAIN, EntryState.HAD: EntryState.PLAIN},
    Event.LOSE: {EntryState.UNSENT: EntryState.PLAIN},
}

TAIL: Final[Table[TailState]] = {
    Event.FOLLOW: {TailState.PARKED: TailState.BEHIND},
    Event.CATCH_UP: {TailState.BEHIND: TailState.LIVE},
    Event.MISS: {TailState.LIVE: TailState.BEHIND},
    Event.PARK: {TailState.BEHIND: TailState.PARKED, TailState.LIVE: TailState.PARKED},
}


def after(table: Table[State], event: Event, state: State) -> State:
    """The next state: the table's, or `state` itself if the event does not change it."""
    return table[event].get(state, state)
