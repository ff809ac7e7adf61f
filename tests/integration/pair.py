"""Two nodes of one cluster, each by itself."""

from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

from tests.integration.cluster_node import CONFIG
from tests.integration.node import Node
from tests.servers import mongodb, redis


class Pair:
    """`nodes` on stores of their own, not started yet. The directory is a file that they share, as these
    tests are not about it."""

    def __init__(self, directory: Path, settings: Iterable[str] = (), count: int = 2) -> None:
        name = f"parley_test_{uuid4().hex}"
        mongo = "plugins.plugins.persistence.mongodb.MongoPersistencePlugin"
        shared = [
            f"storage.directory_url=sqlite:///{directory / 'directory.db'}",
            f"plugins.plugins.auth.UserAuthPlugin.token_keys={directory / 'token_keys.json'}",
            f"{mongo}.uri={mongodb.server_url()}",
            f"{mongo}.database={name}",
            f"{mongo}.pool_min=1",
            f"cluster.url={redis.server_url()}",
            f"cluster.prefix='{name}:'",
        ]
        self.nodes: list[Node] = []
        for number in range(count):
            place = directory / f"node-{number}"
            place.mkdir()
            own = [f"node.id={number}", f"cluster.name=node-{number}"]
            self.nodes.append(Node(place, [*shared, *own, *settings], CONFIG))

    def start(self) -> "Pair":
        for node in self.nodes:
            node.start()
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
