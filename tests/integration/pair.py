"""Two nodes of one cluster, each by itself."""

from collections.abc import Iterable
from pathlib import Path

from tests.integration.cluster_node import CONFIG, Stores
from tests.integration.node import Node


class Pair:
    """`nodes` on stores of their own, not started yet."""

    def __init__(self, directory: Path, settings: Iterable[str] = (), count: int = 2) -> None:
        self.stores = Stores()
        keys = f"plugins.plugins.auth.UserAuthPlugin.token_keys={directory / 'token_keys.json'}"
        self.nodes: list[Node] = []
        for number in range(count):
            place = directory / f"node-{number}"
            place.mkdir()
            own = [f"node.id={number}", f"cluster.name=node-{number}"]
            self.nodes.append(Node(place, [*self.stores.settings(), keys, *own, *settings], CONFIG))

    def start(self) -> "Pair":
        for node in self.nodes:
            node.start()
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
