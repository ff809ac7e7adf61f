"""Several nodes of a cluster behind nginx, used as one: the users of a test are spread over all."""

import asyncio
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from deploy.local.layout import Ports
from deploy.local.nginx import configuration
from tests.integration.node import HOST, ROOT, Node
from tests.servers import mariadb, mongodb, nginx, redis
from tests.servers.processes import Process, free_port

NODES = 2
CONFIG = ROOT / "config" / "cluster.yaml"
_PROXIED = ("listeners.default.proxy_protocol=true", f"node.trusted_proxies=[{HOST}]")


class Stores:
    """Databases of their own on the servers of the run, for the nodes of one cluster."""

    def __init__(self) -> None:
        self.name = f"parley_test_{uuid4().hex}"
        server = mariadb.server_url()
        asyncio.run(mariadb.run(server, f"CREATE DATABASE {self.name}"))
        self.directory_url = urlunsplit(urlsplit(server)._replace(path=f"/{self.name}"))

    def settings(self) -> list[str]:
        mongo = "plugins.plugins.persistence.mongodb.MongoPersistencePlugin"
        return [
            f"storage.directory_url={self.directory_url}",
            f"{mongo}.uri={mongodb.server_url()}",
            f"{mongo}.database={self.name}",
            f"{mongo}.pool_min=1",
            f"cluster.url={redis.server_url()}",
            f"cluster.prefix='{self.name}:'",
        ]


class ClusterNode(Node):
    """`NODES` nodes. Administration is that of the first."""

    def __init__(self, directory: Path, settings: Iterable[str] = (), config: Path | None = None) -> None:
        stores = Stores()
        config = config or CONFIG
        keys = f"plugins.plugins.auth.UserAuthPlugin.token_keys={directory / 'token_keys.json'}"
        # nginx is where all clients come from, unless a test says that it is not to be believed.
        shared = [*stores.settings(), keys, *_PROXIED, *settings]
        self._others: list[Node] = []
        self._front: Process | None = None
        self._folder = directory
        super().__init__(directory, [*shared, *_named(0)], config)
        for number in range(1, NODES):
            place = directory / f"other-{number}"
            place.mkdir()
            self._others.append(Node(place, [*shared, *_named(number)], config))

    def start(self) -> "Node":
        super().start()
        for other in self._others:
            other.start()
        self._open_front([self, *self._others])
        return self

    def _open_front(self, nodes: list[Node]) -> None:
        inside = [
            Ports(
                node.port, node.ws_port, *(int(place.rpartition(":")[2]) for place in (node.grpc, node.http))
            )
            for node in nodes
        ]
        outside = Ports(*(free_port() for _ in range(4)))
        self._front = nginx.own(self._folder / "nginx", outside.mqtt, configuration(outside, inside, inside))
        self._front.start()
        self.port, self.ws_port = outside.mqtt, outside.ws
        self.grpc, self.http = f"{HOST}:{outside.grpc}", f"http://{HOST}:{outside.http}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self._front is not None:
            self._front.end()
            self._front = None
        for other in self._others:
            other.stop(number)
        return super().stop(number)

    def log(self) -> str:
        return "".join([super().log(), *(other.log() for other in self._others)])

    def stats(self) -> dict[str, int]:
        """The sums over all nodes."""
        total = Counter(super().stats())
        for other in self._others:
            total.update(other.stats())
        return dict(total)


def _named(number: int) -> list[str]:
    return [f"node.id={number}", f"cluster.name=node-{number}"]
