"""Reading in turns. Sans-IO.

What a client sends is handled when it arrives, but only so many packets or bytes at a time: a *visit*. A
client that has sent more waits here for its next visit, and so do the other connections of its user. In each
turn of the event loop there are a few visits, of all who wait in turns. So a flood, however many connections
it comes from, delays others by those few visits. Who sends little at a time never waits.
"""

from collections.abc import Callable, Hashable
from typing import Protocol

from broker.domain.lines import Lines

VISITS = 4
"""Visits in a turn of the event loop. A client that waits alone gets all of them."""
VISIT_BYTES = 64 * 1024
"""A visit ends with so many bytes, too: large packets take long."""


class Visited(Protocol):
    """A client whose packets wait."""

    def visit(self) -> None:
        """Handle some of them. It may wait again at once."""
        ...


class Turns:
    """The clients that wait, in a line for each user. `call_soon` is the event loop's. `packets` is the size
    of a visit, and `totals` counts those that wait for another one as `turns_waited`. `busy` is called with
    True when the first begins to wait, and with False when none waits any more."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        packets: int,
        totals: dict[str, int],
        busy: Callable[[bool], None],
    ) -> None:
        self._call_soon = call_soon
        self._busy = busy
        self._totals = totals
        self._is_called = False
        self.packets: range
        """To count the packets of a visit."""
        self.allow(packets)
        self.lines: Lines[Visited] = Lines()

    def allow(self, packets: int) -> None:
        """Change the size of a visit."""
        self.packets = range(packets)

    def wait(self, line: Hashable, client: Visited) -> None:
        """Visit a client when its line has its turn."""
        self._totals["turns_waited"] += 1
        self.lines.put(line, client)
        if not self._is_called:
            self._is_called = True
            self._busy(True)
            self._call_soon(self._go_round)

    def _go_round(self) -> None:
        for _ in range(VISITS):
            client = self.lines.take()
            if client is None:
                break
            client.visit()
        self._is_called = len(self.lines) > 0
        if self._is_called:
            self._call_soon(self._go_round)
        else:
            self._busy(False)
