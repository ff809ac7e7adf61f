"""Topic filters with wildcards, matched level by level."""

from typing import Generic, TypeVar

T = TypeVar("T")


class _Node(Generic[T]):
    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[T]] = {}
        self.values: dict[T, int] = {}


class Trie(Generic[T]):
    """Maps topic filters to subscribers and their QoS. `len` is the number of subscriptions."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, topic_filter: str, value: T, qos: int) -> None:
        """Subscribe `value` to the filter, in place of an earlier QoS."""
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        if value not in node.values:
            self._count += 1
        node.values[value] = qos

    def discard(self, topic_filter: str, value: T) -> None:
        """Remove a subscription, and the branch that is empty without it."""
        path = [self._root]
        levels = topic_filter.split("/")
        for level in levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        if path[-1].values.pop(value, None) is not None:
            self._count -= 1
        for level, parent, node in zip(reversed(levels), path[-2::-1], path[:0:-1], strict=True):
            if node.values or node.children:
                break
            del parent.children[level]

    def match(self, topic: str) -> dict[T, int]:
        """Subscriber -> highest QoS, of all filters that match the topic (MQTT 3.1.1, 4.7)."""
        found: dict[T, int] = {}
        levels = topic.split("/")
        root = self._root
        # A loop and not a recursion: a client may publish to a topic of many levels.
        todo = [(root, 0)]
        while todo:
            node, depth = todo.pop()
            children = node.children
            # [MQTT-4.7.2-1]: a leading wildcard does not match a topic that begins with "$"
            wildcards = node is not root or not topic.startswith("$")
            if wildcards and (rest := children.get("#")):
                _merge(found, rest.values)
            if depth == len(levels):
                _merge(found, node.values)
                continue
            if child := children.get(levels[depth]):
                todo.append((child, depth + 1))
            if wildcards and (child := children.get("+")):
                todo.append((child, depth + 1))
        return found


def _merge(found: dict[T, int], values: dict[T, int]) -> None:
    for value, qos in values.items():
        if found.get(value, -1) < qos:
            found[value] = qos
