"""The laws of what is under way to a client: three small state machines, as tables.

A packet id (MQTT 3.1.1, chapters 4.3 and 4.4):

    FREE --PUBLISH 1--> SENT_1 --PUBACK--> FREE
    FREE --PUBLISH 2--> SENT_2 --PUBREC--> RELEASED --PUBCOMP--> FREE

1. A packet id is handed out when it is free, and stands for one message until it is free again
   [MQTT-2.3.1-2] [MQTT-2.3.1-4].
2. Only PUBACK frees one of QoS 1 [MQTT-4.3.2-1], only PUBREC and then PUBCOMP one of QoS 2
   [MQTT-4.3.3-1].
3. On a new connection what was sent and not acknowledged is sent again, with the packet id it had
   [MQTT-4.4.0-1] [MQTT-2.3.1-3]. An entry must be read from its log first: until then it is unsent.
   An answer may come before that, as the client may have had it from the earlier connection.
4. What is released is never sent again [MQTT-4.3.3-1]; its PUBREL is [MQTT-4.4.0-1].
5. An unsent entry that cannot be sent any more, as the right to it was lost, gives its packet id
   back. The client may hold one of QoS 2 (4.3.3), so that is released and not simply free.

An entry of a log, with regard to what earlier connections did:

6. The reader sends each entry that it comes to, but not one that the receiver has had. Nothing is
   remembered of an entry that the reader is past, unless it is to be sent again.

A tail, a session's place in one log:

7. A live tail takes the next entry as it is pushed. When it misses one it is behind, and reads the
   log until there is nothing after its position. No push may overtake the log [MQTT-4.6.0-6].

Each table says, event by event, which state follows which; a row is one event in one state. What has
no row leaves the state as it is: acknowledgements may come late, twice or for nothing.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum, auto
from typing import Final, TypeVar


class IdState(IntEnum):  # integers, as each message looks states up and their hash costs nothing
    """The states of a packet id. The digit is the QoS; released is QoS 2."""

    FREE = auto()
    SENT_1 = auto()
    """In the window: waits for PUBACK."""
    SENT_2 = auto()
    """In the window: waits for PUBREC."""
    UNSENT_1 = auto()
    """Sent by an earlier connection, to be sent again."""
    UNSENT_2 = auto()
    RELEASED = auto()
    """The receiver has the message; waits for PUBCOMP."""


class EntryState(IntEnum):
    """What is remembered of an entry that is not in the window."""

    PLAIN = auto()
    """Nothing: it is sent when the reader comes to it."""
    UNSENT = auto()
    """Sent by an earlier connection, to be sent again."""
    HAD = auto()
    """The receiver has it, and the reader is not past it."""


class TailState(IntEnum):
    """The states of a tail."""

    PARKED = auto()
    """The log is not read."""
    BEHIND = auto()
    LIVE = auto()


class Event(Enum):
    """What happens to them."""

    PUBLISH_1 = auto()
    """A message is sent with QoS 1."""
    PUBLISH_2 = auto()
    PUBACK = auto()
    PUBREC = auto()
    PUBCOMP = auto()
    RECONNECT = auto()
    """A new connection takes up what the last one left."""
    PUBLISH_AGAIN = auto()
    """The message is sent again, with DUP [MQTT-3.3.1-1]."""
    LOSE = auto()
    """It cannot be sent again: the right to it is gone, or the entry is."""

    RESTORE_UNSENT = auto()
    """An earlier connection sent the entry; the receiver is not known to have it."""
    RESTORE_HAD = auto()
    """The receiver had the entry on an earlier connection."""
    ANSWER = auto()
    """PUBACK or PUBREC came before the entry was sent again."""
    READ = auto()
    """The reader has come to the entry, or begins past it."""

    FOLLOW = auto()
    """The session begins to read the log."""
    MISS = auto()
    """An entry was pushed that cannot be sent now."""
    CATCH_UP = auto()
    """The log has nothing after the position."""
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
    """The state that follows."""
    return table[event].get(state, state)
