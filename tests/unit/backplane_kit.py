"""A backplane in memory: what several nodes of one process would tell each other."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from broker.domain.topics import matches
from broker.ports import Head, Hint, Taken


class Bus:
    """What the nodes share."""

    def __init__(self) -> None:
        self.holders: dict[str, str] = {}
        """Log -> the node whose turn it is."""
        self.heads: dict[str, Head] = {}
        self.freed = asyncio.Event()
        self.nodes: list[BusHints] = []


class BusTurns:
    """See `broker.ports.Turns`. `story`: the groups of logs that were asked for, in their order."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus = bus
        self._name = name
        self.story: list[list[Sequence[str]]] = []

    async def take(self, groups: Sequence[Sequence[str]]) -> Taken:
        await asyncio.sleep(0)
        bus, denied, granted = self._bus, set[str](), []
        self.story.append(list(groups))
        for logs in groups:
            mine = not denied.intersection(logs) and all(
                bus.holders.get(log, self._name) == self._name for log in logs
            )
            granted.append(mine)
            if mine:
                bus.holders.update(dict.fromkeys(logs, self._name))
            else:
                denied.update(logs)
        held = [log for logs, mine in zip(groups, granted, strict=True) if mine for log in logs]
        return Taken(granted, {log: bus.heads[log] for log in held if log in bus.heads})

    async def freed(self) -> None:
        self._bus.freed.clear()
        await self._bus.freed.wait()

    def give_back(self, heads: Mapping[str, Head | None]) -> None:
        for log, head in heads.items():
            assert self._bus.holders.pop(log) == self._name
            if head is None:
                self._bus.heads.pop(log, None)
            else:
                self._bus.heads[log] = head
        self._bus.freed.set()


class BusHints:
    """See `broker.ports.Hints`. While `is_cut`, hints to this node are lost."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.following: dict[str, int] = defaultdict(int)
        self.received: Callable[[Hint], None] = lambda _hint: None
        self.is_cut = False
        bus.nodes.append(self)

    def publish(self, hints: Sequence[Hint]) -> None:
        for node in self._bus.nodes:
            if node is not self and not node.is_cut:
                for hint in hints:
                    if any(matches(each, hint.topic) for each in node.following):
                        node.received(hint)

    def follow(self, topic_filter: str) -> None:
        assert topic_filter not in self.following
        self.following[topic_filter] = 1

    def unfollow(self, topic_filter: str) -> None:
        del self.following[topic_filter]

    async def followed(self) -> None:
        await asyncio.sleep(0)
