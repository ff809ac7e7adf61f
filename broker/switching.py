"""How long a thread of the stores waits for Python's lock."""

import sys

_SECONDS = sys.getswitchinterval()
_SECONDS_WHEN_BUSY = 0.0002


class Switching:
    """Lowers Python's switch interval while the event loop has more to do than a turn holds.

    While it computes all the time, the default of 5 ms is what a store's thread would wait after each of its
    steps, and all who wait for the store with it. Otherwise switching more often only costs."""

    def __init__(self) -> None:
        self._reasons = 0

    def busy(self, is_busy: bool) -> None:
        """One more part has work for many turns, or one less."""
        self._reasons += 1 if is_busy else -1
        sys.setswitchinterval(_SECONDS_WHEN_BUSY if self._reasons else _SECONDS)
