"""The logs that a session reads."""

from broker.session.tail import Tail


class Logs:
    """A session's tails, and its cursors in logs that it does not read now."""

    __slots__ = ("behind", "finishing", "moved", "parked", "tails")

    def __init__(self) -> None:
        self.tails: dict[str, Tail] = {}
        """Topic -> tail."""
        self.behind: dict[str, Tail] = {}
        """Topic -> tail, for the tails that are not live."""
        self.finishing: dict[str, Tail] = {}
        """Topic -> tail, for logs that the client has unsubscribed from, with entries to be sent again."""
        self.parked: dict[str, int] = {}
        """Log -> cursor, for logs that the session has read before and does not read now."""
        self.moved: dict[str, Tail] = {}
        """Log -> tail, for tails whose cursor may have moved since it was last stored."""

    def follow(self, tail: Tail) -> None:
        """Start to read a log. The tail is behind until the feeder has found nothing after its position."""
        self.tails[tail.topic] = self.behind[tail.topic] = tail
        self.parked.pop(tail.log, None)
        self.finishing.pop(tail.topic, None)

    def park(self, topic: str) -> Tail | None:
        """Stop reading a log, and keep the position for a later `follow`. Returns its tail, if it had one."""
        tail = self.tails.pop(topic, None) or self.finishing.pop(topic, None)
        self.behind.pop(topic, None)
        if tail is not None:
            tail.park()
            if tail.qos:  # QoS 0 has no cursor: it starts at the head again
                self.parked[tail.log] = tail.position
        return tail

    def go_back(self, log: str, offset: int) -> None:
        """Move the cursor of a parked log back before `offset`, so that a later `follow` reads that entry."""
        if log in self.parked:
            self.parked[log] = min(self.parked[log], offset - 1)

    def missed(self, tail: Tail, offset: int) -> None:
        """A pushed entry could not be sent: the tail is behind."""
        tail.missed(offset)
        self.behind[tail.topic] = tail

    def caught_up(self, tail: Tail) -> None:
        """The log has nothing after the tail's position: the tail is live."""
        tail.caught_up()
        self.behind.pop(tail.topic, None)

    def finish(self, tail: Tail) -> None:
        """Send again what the tail owes, and nothing else."""
        tail.park()
        self.finishing[tail.topic] = tail

    def finished(self) -> None:
        """Drop the tails that owe nothing any more."""
        self.finishing = {topic: tail for topic, tail in self.finishing.items() if tail.to_resend()}

    def is_read(self, tail: Tail) -> bool:
        """Whether entries may still be sent by this tail."""
        return self.tails.get(tail.topic) is tail or self.finishing.get(tail.topic) is tail

    @property
    def read(self) -> list[Tail]:
        """The tails by which entries may be sent."""
        return [*self.tails.values(), *self.finishing.values()]

    def tail_of(self, log: str) -> Tail | None:
        """The tail of a log, or None if the log is not read."""
        return next((tail for tail in self.read if tail.log == log), None)

    def positions(self) -> dict[str, int]:
        """Log -> the offset of the last entry sent. Tails of QoS 0 are left out: they have no cursor."""
        return self.parked | {tail.log: tail.position for tail in self.tails.values() if tail.qos}

    # --- cursors to store ------------------------------------------------------------

    @property
    def to_save(self) -> dict[str, int]:
        """Log -> cursor, for cursors that moved since they were last stored."""
        return {log: tail.cursor for log, tail in self.moved.items()}

    def saved(self) -> None:
        """The cursors were handed to the store."""
        self.moved.clear()
