"""Which topics a node has readers of, told to the other nodes of a cluster."""

from collections.abc import Iterable

from broker.ports import Hints


class Interest:
    """Counts the readers of each topic or wildcard. The other nodes are told of the first and the last."""

    def __init__(self, hints: Hints) -> None:
        self._hints = hints
        self._readers: dict[str, int] = {}

    def add(self, topic_filter: str) -> None:
        """One more reader."""
        readers = self._readers.get(topic_filter, 0)
        self._readers[topic_filter] = readers + 1
        if not readers:
            self._hints.follow(topic_filter)

    def discard(self, topic_filter: str) -> None:
        """One reader less."""
        readers = self._readers.pop(topic_filter) - 1
        if readers:
            self._readers[topic_filter] = readers
        else:
            self._hints.unfollow(topic_filter)

    async def announce(self, topic_filters: Iterable[str]) -> None:
        """A reader of these is about to come: returns when whatever other nodes store from now on is told
        here. The heads of their logs must be read after this, or an entry might be missed in between. When
        the reader has come, or will not come, `release` must be called with the same ones."""
        for each in topic_filters:
            self.add(each)
        await self._hints.followed()

    def release(self, topic_filters: Iterable[str]) -> None:
        """The readers count for themselves now."""
        for each in topic_filters:
            self.discard(each)
