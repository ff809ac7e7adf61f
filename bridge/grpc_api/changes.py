"""Changes of the directory, for those that want to know for a time."""

from collections.abc import Callable

from broker.ports import DirectoryChange

Watcher = Callable[[DirectoryChange], None]


class Changes:
    """Tells watchers. `tell` is for `Directory.on_change`, which nobody can leave again."""

    def __init__(self) -> None:
        self._watchers: set[Watcher] = set()

    def tell(self, change: DirectoryChange) -> None:
        """Something has changed."""
        for watcher in tuple(self._watchers):
            watcher(change)

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Tell a watcher of each change; call the result to stop that."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)
