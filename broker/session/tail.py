"""A reader's place in one log."""

from broker.domain.visibility import OPEN, Horizon
from broker.session.laws import TAIL, Event, TailState, after


class Tail:
    """Where a session stands in a log it is subscribed to.

    `position` is the last offset handed to the connection, `cursor` the last before which
    everything is acknowledged. A live tail gets entries pushed; one that is not reads the log
    until it has caught up with `head`, the last offset it was told of.

    `resend` holds what an earlier connection sent and did not get acknowledged: offset -> packet
    id, or 0 for what the receiver has but `position` is not past.

    Its states are those of `laws.TAIL`.
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

    def __init__(self, topic: str, log: str, position: int, qos: int, horizon: Horizon = OPEN) -> None:
        self.topic = topic
        self.log = log
        self.position = position
        self.qos = qos
        self.horizon = horizon
        """The messages that the reader may not see. Whoever sends the tail an entry obeys it."""
        self.head = position
        self.state = after(TAIL, Event.FOLLOW, TailState.PARKED)
        self.live = False
        """Whether its state is LIVE: each push asks."""
        self.resend: dict[int, int] = {}
        self.reported = position
        """Up to where it was reported that the receiver has the entries."""
        self._unacknowledged: dict[int, None] = {}

    # --- its state -------------------------------------------------------------------

    def caught_up(self) -> None:
        """The log has nothing after the position."""
        self._move(Event.CATCH_UP)

    def missed(self, offset: int) -> None:
        """An entry after the position was not sent: it is to be read."""
        self.head = max(self.head, offset)
        self._move(Event.MISS)

    def park(self) -> None:
        """The log is not read any more."""
        self._move(Event.PARK)

    def _move(self, event: Event) -> None:
        self.state = after(TAIL, event, self.state)
        self.live = self.state is TailState.LIVE

    def grant(self, qos: int, horizon: Horizon = OPEN) -> None:
        """Entries go with at most this QoS, and within this horizon, from here on."""
        self.qos = qos
        self.horizon = horizon

    # --- where it stands -------------------------------------------------------------

    @property
    def cursor(self) -> int:
        """What a reader that comes back has had for certain."""
        for offset in self._unacknowledged:  # in the order sent: the first is the lowest
            return offset - 1
        return self.position

    def report(self) -> tuple[int, int] | None:
        """What the receiver has acknowledged since the last report: entries after the first offset,
        up to the second."""
        before, cursor = self.reported, self.cursor
        self.reported = max(before, cursor)
        return (before, cursor) if cursor > before else None

    def advance(self, offset: int) -> None:
        """The entry at `offset` needs no acknowledgement: it went with QoS 0, or before."""
        self.position = offset

    def sent(self, offset: int) -> None:
        """The entry at `offset` went out, and is to be acknowledged."""
        self.position = offset
        self._unacknowledged[offset] = None

    def await_acknowledgement(self, offset: int) -> None:
        """The entry at `offset`, at or before the position, went out again."""
        later = self._unacknowledged
        self._unacknowledged = dict.fromkeys(sorted((*later, offset)))

    def acknowledged(self, offset: int) -> None:
        """The receiver has the entry at `offset`."""
        self._unacknowledged.pop(offset, None)

    # --- what an earlier connection sent ---------------------------------------------

    def owe(self, offset: int, packet_id: int) -> None:
        """The entry at `offset` is to be sent again with this packet id."""
        self.resend[offset] = packet_id
        self.reported = min(self.reported, offset - 1)

    def skip(self, offset: int) -> None:
        """The entry at `offset`, after the position, is not to be sent."""
        self.resend[offset] = 0

    def to_resend(self) -> list[int]:
        """Offsets before the position that are to be sent again."""
        return [offset for offset in self.resend if offset <= self.position]
