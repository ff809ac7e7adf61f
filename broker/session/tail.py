"""A session's place in one log."""

from broker.domain.visibility import OPEN, View
from broker.session.laws import TAIL, Event, TailState, after


class Tail:
    """A session's place in a log it is subscribed to. Its states are those of `laws.TAIL`.

    `position` is the offset of the last entry sent; all entries up to `cursor` are acknowledged. `head`
    is the highest offset known to be in the log: a tail that is behind reads the log at least that far.

    `resend` has the entries that an earlier connection sent, as offset -> packet id. Packet id 0 marks
    an entry that the receiver has and that `position` has not passed: it is skipped.
    """

    __slots__ = (
        "_unacknowledged",
        "head",
        "horizon",
        "live",
        "log",
        "position",
        "qos",
        "reported",
        "resend",
        "state",
        "topic",
    )

    def __init__(self, topic: str, log: str, position: int, qos: int, horizon: View = OPEN) -> None:
        self.topic = topic
        self.log = log
        self.position = position
        self.qos = qos
        self.horizon = horizon
        """The messages that the reader may not see. Whoever sends the tail an entry obeys it."""
        self.head = position
        self.state = after(TAIL, Event.FOLLOW, TailState.PARKED)
        self.live = False
        """Whether the state is LIVE. A flag, because every push reads it."""
        self.resend: dict[int, int] = {}
        self.reported = position
        """The entries up to this offset were reported as acknowledged, see `report`."""
        self._unacknowledged: dict[int, None] = {}

    # --- its state -------------------------------------------------------------------

    def caught_up(self) -> None:
        """The log has nothing after the position: the tail is live."""
        self._move(Event.CATCH_UP)

    def missed(self, offset: int) -> None:
        """A pushed entry after the position could not be sent: the tail is behind."""
        self.head = max(self.head, offset)
        self._move(Event.MISS)

    def park(self) -> None:
        """The session stops reading the log."""
        self._move(Event.PARK)

    def _move(self, event: Event) -> None:
        self.state = after(TAIL, event, self.state)
        self.live = self.state is TailState.LIVE

    def grant(self, qos: int, horizon: View = OPEN) -> None:
        """Entries go with at most this QoS, and within this horizon, from here on."""
        self.qos = qos
        self.horizon = horizon

    # --- position and cursor ---------------------------------------------------------

    @property
    def cursor(self) -> int:
        """The receiver has acknowledged all entries up to this offset."""
        for offset in self._unacknowledged:  # in the order sent: the first is the lowest
            return offset - 1
        return self.position

    def report(self) -> tuple[int, int] | None:
        """The entries acknowledged since the last report: those after the first offset, up to and
        including the second. None if there are none."""
        before, cursor = self.reported, self.cursor
        self.reported = max(before, cursor)
        return (before, cursor) if cursor > before else None

    def advance(self, offset: int) -> None:
        """The entry at `offset` needs no acknowledgement: its QoS is 0, or an earlier connection sent it."""
        self.position = offset

    def sent(self, offset: int) -> None:
        """The entry at `offset` was sent, and must be acknowledged."""
        self.position = offset
        self._unacknowledged[offset] = None

    def await_acknowledgement(self, offset: int) -> None:
        """The entry at `offset`, not after the position, was sent again and must be acknowledged."""
        later = self._unacknowledged
        self._unacknowledged = dict.fromkeys(sorted((*later, offset)))

    def acknowledged(self, offset: int) -> None:
        """The receiver has the entry at `offset`."""
        self._unacknowledged.pop(offset, None)

    # --- entries that an earlier connection sent -------------------------------------

    def owe(self, offset: int, packet_id: int) -> None:
        """The entry at `offset` must be sent again with this packet id."""
        self.resend[offset] = packet_id
        self.reported = min(self.reported, offset - 1)

    def skip(self, offset: int) -> None:
        """The entry at `offset`, after the position, must not be sent: the receiver has it."""
        self.resend[offset] = 0

    def to_resend(self) -> list[int]:
        """The offsets, not after the position, of entries that must be sent again."""
        return [offset for offset in self.resend if offset <= self.position]
