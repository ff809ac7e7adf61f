"""A reader's place in one log."""


class Tail:
    """Where a session stands in a log it is subscribed to.

    `position` is the last offset handed to the connection, `cursor` the last before which
    everything is acknowledged. A live tail gets entries pushed; one that is not reads the log
    until it has caught up with `head`, the last offset it was told of.

    `resend` holds what an earlier connection sent and did not get acknowledged: offset -> packet
    id, or 0 for what the receiver has but `position` is not past.
    """

    __slots__ = ("_unacknowledged", "head", "live", "log", "position", "qos", "reported", "resend", "topic")

    def __init__(self, topic: str, log: str, position: int, qos: int) -> None:
        self.topic = topic
        self.log = log
        self.position = position
        self.qos = qos
        self.head = position
        self.live = False
        self.resend: dict[int, int] = {}
        self.reported = position
        """Up to where it was reported that the receiver has the entries."""
        self._unacknowledged: dict[int, None] = {}

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

    def to_resend(self) -> list[int]:
        """Offsets before the position that are to be sent again."""
        return [offset for offset in self.resend if offset <= self.position]

    def sent(self, offset: int, qos: int) -> None:
        """The entry at `offset` went out with `qos`."""
        self.position = offset
        if qos:
            self._unacknowledged[offset] = None

    def await_acknowledgement(self, offset: int) -> None:
        """The entry at `offset`, at or before the position, went out again."""
        later = self._unacknowledged
        self._unacknowledged = dict.fromkeys(sorted((*later, offset)))

    def acknowledged(self, offset: int) -> None:
        """The receiver has the entry at `offset`."""
        self._unacknowledged.pop(offset, None)
