"""User, group and message ids."""

import re

ID_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")

EPOCH_MS = 1_704_067_200_000
"""2024-01-01T00:00:00Z in Unix ms: the epoch of the clock in message ids."""

_NODE_BITS = 10
_COUNTER_BITS = 12
_COUNTER_LIMIT = 1 << _COUNTER_BITS


def is_id(text: str) -> bool:
    """Whether `text` is a valid user or group id."""
    return ID_PATTERN.fullmatch(text) is not None


class Snowflakes:
    """Message ids: 41 bits of milliseconds since `EPOCH_MS`, 10 bits node, 12 bits counter.

    The ids of one node grow strictly. If `growing_ms` steps back, or if one millisecond needs more than
    4,096 ids, the clock in the ids runs ahead of it.
    """

    __slots__ = ("_counter", "_ms", "_node")

    def __init__(self, node: int) -> None:
        if not 0 <= node < 1 << _NODE_BITS:
            raise ValueError(f"node number {node} is not in 0..1023")
        self._node = node << _COUNTER_BITS
        self._ms = 0
        self._counter = 0

    def next(self, growing_ms: int) -> int:
        """The next id at `growing_ms` (Unix ms), which must be later than the ids of an earlier run."""
        ms = growing_ms - EPOCH_MS
        if ms > self._ms:
            self._ms = ms
            self._counter = 0
        else:
            self._counter += 1
            if self._counter == _COUNTER_LIMIT:
                self._ms += 1
                self._counter = 0
        return self._ms << (_NODE_BITS + _COUNTER_BITS) | self._node | self._counter

    @staticmethod
    def created_ms(message_id: int) -> int:
        """The Unix ms in a message id."""
        return (message_id >> (_NODE_BITS + _COUNTER_BITS)) + EPOCH_MS
