"""Several nodes of a cluster, used as one: each access to a port is to another of them, so that the users
of a test are spread over all."""

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from tests.integration.node import ROOT, Node
from tests.servers import mariadb, mongodb, redis

NODES = 2
CONFIG = ROOT / "config" / "cluster.yaml"


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
        shared = [*stores.settings(), keys, *settings]
        self._own: dict[str, Any] = {}
        self._turn = itertools.count()
        self._others: list[Node] = []
        super().__init__(directory, [*shared, *_named(0)], config)
        for number in range(1, NODES):
            place = directory / f"other-{number}"
            place.mkdir()
            self._others.append(Node(place, [*shared, *_named(number)], config))

    def start(self) -> "Node":
        super().start()
        for other in self._others:
            other.start()
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
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

    def _place(self, name: str) -> Any:
        nodes = [self._own, *(vars(other) for other in self._others)]
        return nodes[next(self._turn) % len(nodes)][name]

    @property
    def port(self) -> int:
        return int(self._place("port"))

    @port.setter
    def port(self, port: int) -> None:
        self._own["port"] = port

    @property
    def ws_port(self) -> int:
        return int(self._place("ws_port"))

    @ws_port.setter
    def ws_port(self, port: int) -> None:
        self._own["ws_port"] = port

    @property
    def http(self) -> str:
        return str(self._place("http"))

    @http.setter
    def http(self, url: str) -> None:
        self._own["http"] = url

    @property
    def grpc(self) -> str:
        return str(self._place("grpc"))

    @grpc.setter
    def grpc(self, address: str) -> None:
        self._own["grpc"] = address


def _named(number: int) -> list[str]:
    return [f"node.id={number}", f"cluster.name=node-{number}"]
