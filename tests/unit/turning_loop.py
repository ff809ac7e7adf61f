"""An event loop by hand: it runs what was called when a test says so."""

from collections.abc import Callable


class Loop:
    """`call_soon`, and turns."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()
