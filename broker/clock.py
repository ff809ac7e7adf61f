"""Wall time."""

import time


class SystemClock:
    """See `broker.ports.Clock`."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return time.time_ns() // 1_000_000
