"""The clocks of a node."""

import time


class SystemClock:
    """See `broker.ports.Clock`. `after_ms`: what `growing_ms` has given out before, in an earlier run too."""

    def __init__(self, after_ms: int = 0) -> None:
        self._last = after_ms + 1
        self._steady_from = self.now_ms() - _monotonic_ms()

    def now_ms(self) -> int:
        """Wall time in Unix ms."""
        return time.time_ns() // 1_000_000

    def growing_ms(self) -> int:
        """Wall time that stands still while the wall clock is behind it."""
        self._last = max(self._last, self.now_ms())
        return self._last

    def steady_ms(self) -> int:
        """Unix ms that pass as time does, whatever happens to the wall clock while the node runs: for how
        long something has been so."""
        return self._steady_from + _monotonic_ms()


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
