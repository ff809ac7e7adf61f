"""The logs that a session reads."""

from broker.session.tail import Tail


class Logs:
    """A session's tails, which of them are behind, and where logs that are not read go on."""

    __slots__ = ("behind", "finishing", "moved", "parked", "tails")

    def __init__(self) -> None:
        self.tails: dict[str, Tail] = {}
        """By topic."""
        self.behind: dict[str, Tail] = {}
        """Those of `tails` that are not live."""
        self.finishing: dict[str, Tail] = {}
        """By topic: tails of logs that the client has unsubscribed from, with entries to be sent again."""
        self.parked: dict[str, int] = {}
        """Log -> cursor, of logs that were read before and may be again."""
        self.moved: dict[str, Tail] = {}
        """Log -> tail whose cursor may have gone forward since it was last stored."""

    def follow(self, tail: Tail) -> None:
        """Start to read a log; the tail is behind until the reader has looked."""
        self.tails[tail.topic] = self.behind[tail.topic] = tail
        self.parked.pop(tail.log, None)
        self.finishing.pop(tail.topic, None)

    def park(self, topic: str) -> Tail | None:
        """Stop reading a log; should it be read again, it is from here. Returns its tail."""
        tail = self.tails.pop(topic, None) or self.finishing.pop(topic, None)
        self.behind.pop(topic, None)
        if tail is not None:
            tail.park()
            if tail.qos:  # with QoS 0 it begins anew
                self.parked[tail.log] = tail.position
        return tail

    def go_back(self, log: str, offset: int) -> None:
        """If a log is parked, its entry at `offset` is to be read when it is read again."""
        if log in self.parked:
            self.parked[log] = min(self.parked[log], offset - 1)

    def missed(self, tail: Tail, offset: int) -> None:
        """An entry that was pushed is left to the log."""
        tail.missed(offset)
        self.behind[tail.topic] = tail

    def caught_up(self, tail: Tail) -> None:
        """The log has nothing after the tail's position: from here on it gets pushes."""
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
        """The tail in a log, if it is read."""
        return next((tail for tail in self.read if tail.log == log), None)

    def positions(self) -> dict[str, int]:
        """Log -> the last entry that was sent. With QoS 0 nothing is kept."""
        return self.parked | {tail.log: tail.position for tail in self.tails.values() if tail.qos}

    # --- cursors to store ------------------------------------------------------------

    @property
    def to_save(self) -> dict[str, int]:
        """Log -> cursor, of those that moved since they were last stored."""
        return {log: tail.cursor for log, tail in self.moved.items()}

    def saved(self) -> None:
        """The cursors are on their way to the store."""
        self.moved.clear()
