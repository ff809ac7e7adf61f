"""Passes changes of the directory on to watchers that come and go, such as streams."""

from collections.abc import Callable

from broker.ports import DirectoryChange

Watcher = Callable[[DirectoryChange], None]


class Changes:
    """Watchers of changes. Register `tell` with `Directory.on_change` once: a callback registered there
    cannot be removed."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def tell(self, change: DirectoryChange) -> None:
        """Pass a change on to all watchers."""
        for watcher in tuple(self._watchers):  # a copy: a watcher may stop watching
            watcher(change)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call `watcher` for each change. Call the result to stop that."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)
