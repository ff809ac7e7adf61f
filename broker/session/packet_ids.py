"""Which packet id a session hands out next.

A client may hold the packet ids of QoS 2 that it has received for as long as its session lasts (MQTT 3.1.1,
figure 4.3, second method). It takes a new message with such an id for a repetition, and drops it. After a
crash the node does not know which ids these are, as not every message is noted down. So packet ids are handed
out in turn, and one of QoS 2 only from a range that the store says is reserved. After a crash a session goes
on behind its range, and the ids in it are doubtful: they are not handed out again.

A range is reserved when the last one is used up, or with cursors that are saved anyway. Sessions that have
nothing of QoS 2 reserve none.
"""

import sys
from collections.abc import Container, Iterable

from broker.ports import PacketIds

RESERVED = 512
"""The size of a range: a commit for so many messages, and so many ids fewer after a crash."""

_IDS = 65535
_MOST_DOUBTFUL = 60_000
"""Some ids must be left. Beyond this the ranges of the earliest crashes are given up."""

Range = tuple[int, int]
"""First and last packet id."""


class IdSource:
    """Hands out the packet ids of one session. The n-th is (n - 1) % 65535 + 1; n is its position.

    A session that is not `persistent` ends with its connection, and so does what its client holds: all ids
    are reserved for it."""

    __slots__ = (
        "_asked",
        "_doubtful",
        "_last",
        "_promised",
        "_reserved",
        "_uses_ranges",
        "is_wanted",
        "step",
    )

    def __init__(self, persistent: bool) -> None:
        self.step = RESERVED
        self.is_wanted = False
        """Whether a message of QoS 2 waits for a range."""
        self._last = 0
        self._reserved = 0 if persistent else sys.maxsize
        self._promised = self._reserved
        """As `_reserved`, once all that was asked for is on disk."""
        self._asked = False
        self._uses_ranges = False
        self._doubtful: tuple[Range, ...] = ()

    # --- handing out -----------------------------------------------------------------

    def take(self, taken: Container[int], qos: int) -> int:
        """The next packet id that is not `taken`; not all may be. 0 if it is for QoS 2 and not reserved."""
        last = self._last
        packet_id = last % _IDS + 1
        position = last + 1
        if packet_id in taken or self._doubtful:
            position = self._next(taken)
            packet_id = (position - 1) % _IDS + 1
        if qos == 2 and position > self._reserved:
            self.is_wanted = True
            return 0
        self._last = position
        return packet_id

    def left(self, taken: Container[int]) -> int:
        """How many packet ids may be handed out for QoS 2 now, at most."""
        left = max(0, self._reserved - self._next(taken) + 1)
        self.is_wanted = self.is_wanted or not left
        return left

    def _next(self, taken: Container[int]) -> int:
        position = self._last + 1
        while True:
            if position > self._last + _IDS:  # none is free: the ranges of the earliest crashes are given up
                self._doubtful = self._doubtful[(len(self._doubtful) + 1) // 2 :]
                position = self._last + 1
            packet_id = (position - 1) % _IDS + 1
            if doubtful := self._doubtful and self._end_of_doubt(packet_id):
                position += doubtful - packet_id + 1
            elif packet_id in taken:  # [MQTT-2.3.1-2] [MQTT-2.3.1-4]
                position += 1
            else:
                return position

    def _end_of_doubt(self, packet_id: int) -> int:
        return next((last for first, last in self._doubtful if first <= packet_id <= last), 0)

    # --- reserving -------------------------------------------------------------------

    @property
    def is_low(self) -> bool:
        """Whether less than half a range is left, so that one should be reserved with what is saved next."""
        return self.is_wanted or (self._uses_ranges and self._reserved - self._last < self.step // 2)

    def reserve(self, taken: Container[int], held: Iterable[int]) -> PacketIds | None:
        """Ask for a range: returns what to save, or None while an earlier one is on its way to the disk.
        `held` are the packet ids that the client may hold now."""
        if self._asked:
            return None
        self._asked = True
        last = self._next(taken) - 1
        self._promised = last + self.step
        new = [packet_id for packet_id in sorted(held) if not self._end_of_doubt(packet_id)]
        return PacketIds(last, self._promised, (*self._doubtful, *_ranges(new)))

    def reserved(self, upto: int | None) -> None:
        """The range that was asked for is on disk, up to this position; None if saving it failed."""
        self._asked = False
        if upto is not None:
            self._reserved = upto
            self._uses_ranges = True
            self.is_wanted = False

    # --- between connections ---------------------------------------------------------

    def snapshot(self, at_end: bool) -> PacketIds:
        """What to save with the session. `at_end`: its connection has ended, so all that the client may hold
        is listed in the window, and the rest of the range is given back."""
        reserved = self._last if at_end else max(self._last, self._promised)
        return PacketIds(self._last, reserved, self._doubtful)

    def restore(self, saved: PacketIds) -> None:
        """Go on behind what an earlier connection may have handed out."""
        self._last = self._reserved = self._promised = saved.reserved
        doubtful = [*saved.doubtful]
        if saved.reserved > saved.last:  # a crash
            doubtful += _split(saved.last % _IDS + 1, (saved.reserved - 1) % _IDS + 1)
        while sum(last - first + 1 for first, last in doubtful) > _MOST_DOUBTFUL:
            del doubtful[0]
        self._doubtful = tuple(doubtful)


def _ranges(packet_ids: Iterable[int]) -> list[Range]:
    """Ascending packet ids as ranges."""
    ranges: list[Range] = []
    for packet_id in packet_ids:
        if ranges and ranges[-1][1] == packet_id - 1:
            ranges[-1] = (ranges[-1][0], packet_id)
        else:
            ranges.append((packet_id, packet_id))
    return ranges


def _split(first: int, last: int) -> list[Range]:
    """A range that may go on with 1 after 65535."""
    return [(first, last)] if first <= last else [(first, _IDS), (1, last)]
