"""A cluster of a test's own: three nodes, and stores that can be killed, frozen and cut off."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from uuid import uuid4

from bridge.grpc_api import im_admin_pb2 as pb
from tests.history.client import Address, Person
from tests.history.plan import Fault, Kind
from tests.history.relay import Relay
from tests.integration.cluster_node import CONFIG
from tests.integration.node import HOST, Node
from tests.servers import mariadb, mongodb, redis
from tests.servers.processes import Process, free_port

NODES = 3
_MONGO = "plugins.plugins.persistence.mongodb.MongoPersistencePlugin"


class Stores:
    """The servers of a cluster. Each node reaches them by relays of its own."""

    def __init__(self, folder: Path, *, own_mariadb: bool) -> None:
        self.name = f"parley_test_{uuid4().hex}"
        self.redis, redis_url = redis.own(folder)
        self.mongodb, mongodb_url = mongodb.own(folder)
        self.mariadb: Process | None = None
        if own_mariadb:
            self.mariadb, self._mariadb_url = mariadb.own(folder)
        else:
            self._mariadb_url = mariadb.server_url()
        self._ports = [urlsplit(url).port or 0 for url in (redis_url, mongodb_url, self._mariadb_url)]

    def start(self) -> None:
        for server in self._own():
            server.start()

    def end(self) -> None:
        for server in self._own():
            server.kill()

    def _own(self) -> list[Process]:
        return [server for server in (self.redis, self.mongodb, self.mariadb) if server is not None]

    async def prepare(self) -> None:
        await mariadb.run(self._mariadb_url, f"CREATE DATABASE {self.name}")

    async def forget(self) -> None:
        """Drop the database on a server that others use."""
        if self.mariadb is None:
            await mariadb.run(self._mariadb_url, f"DROP DATABASE {self.name}")

    def relays(self) -> list[Relay]:
        return [Relay(port) for port in self._ports]

    def settings(self, relays: list[Relay]) -> list[str]:
        to_redis, to_mongodb, to_mariadb = (f"{HOST}:{relay.port}" for relay in relays)
        user = urlsplit(self._mariadb_url).netloc.rpartition("@")[0]
        return [
            f"storage.directory_url=mysql+pymysql://{user}@{to_mariadb}/{self.name}",
            f"{_MONGO}.uri=mongodb://{to_mongodb}/?directConnection=true",
            f"{_MONGO}.database={self.name}",
            f"{_MONGO}.pool_min=1",
            f"cluster.url=redis://{to_redis}",
            f"cluster.prefix='{self.name}:'",
        ]


class ClockedNode(Node):
    """A node whose wall clock is wrong."""

    program = "tests.history.wrong_clock"


class Member:
    """A node with its relays to the stores."""

    def __init__(self, node: Node, port: int, relays: list[Relay]) -> None:
        self.node = node
        self.address = Address(HOST, port)
        self.relays = relays

    def signal(self, number: int) -> None:
        assert self.node.process is not None
        self.node.process.send_signal(number)


class Cluster:
    """What a run needs to know of it, and what can be done to it."""

    def __init__(self, stores: Stores, members: list[Member]) -> None:
        self.stores = stores
        self.members = members
        self._acts = {
            Kind.KILL: self._kill,
            Kind.FREEZE: self._freeze,
            Kind.CUT: self._cut,
            Kind.REDIS_EMPTIED: self._redis_away,
            Kind.REDIS_AWAY: self._redis_away,
            Kind.REDIS_FROZEN: self._redis_frozen,
            Kind.MONGODB_KILLED: self._mongodb_killed,
            Kind.MARIADB_RESTARTED: self._mariadb_restarted,
        }

    @property
    def addresses(self) -> list[Address]:
        return [member.address for member in self.members]

    def people(self, count: int) -> list[Person]:
        """New users, with tokens: to check passwords would take much of the time."""
        node = self.members[0].node
        names = [f"u{number}" for number in range(count)]
        for name in names:
            node.call("AddUser", pb.AddUserRequest(user_id=name, password=f"secret-of-{name}", role="user"))
        return [Person(name, node.token(name, 86400)) for name in names]

    def ended(self) -> list[str]:
        """The logs of nodes that have ended by themselves."""
        processes = [(member.node.process, member.node) for member in self.members]
        return [node.log()[-4000:] for process, node in processes if process and process.poll() is not None]

    # --- faults --------------------------------------------------------------------------

    async def suffer(self, faults: list[Fault]) -> None:
        """Faults, one after the other."""
        for fault in faults:
            await asyncio.sleep(fault.after)
            print(fault, flush=True)
            await self._acts[fault.kind](fault)

    async def _kill(self, fault: Fault) -> None:
        node = self.members[fault.node].node
        await asyncio.to_thread(node.kill)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(node.start)

    async def _freeze(self, fault: Fault) -> None:
        member = self.members[fault.node]
        member.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            member.signal(signal.SIGCONT)

    async def _cut(self, fault: Fault) -> None:
        relays = self.members[fault.node].relays
        for relay in relays:
            relay.cut()
        await asyncio.sleep(fault.seconds)
        for relay in relays:
            relay.heal()

    async def _redis_away(self, fault: Fault) -> None:
        await self._restart(self.stores.redis, fault.seconds)

    async def _redis_frozen(self, fault: Fault) -> None:
        os.kill(self.stores.redis.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            os.kill(self.stores.redis.pid, signal.SIGCONT)

    async def _mongodb_killed(self, fault: Fault) -> None:
        await self._restart(self.stores.mongodb, fault.seconds)

    async def _mariadb_restarted(self, fault: Fault) -> None:
        assert self.stores.mariadb is not None
        await asyncio.to_thread(self.stores.mariadb.end)
        await asyncio.sleep(fault.seconds)
        await asyncio.to_thread(self.stores.mariadb.start)

    async def _restart(self, server: Process, seconds: float) -> None:
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.start)


@asynccontextmanager
async def cluster(
    folder: Path, *, own_mariadb: bool = False, clocks: Sequence[int] = (0,) * NODES
) -> AsyncIterator[Cluster]:
    """A running cluster. `clocks`: by how many seconds those of the nodes are ahead."""
    async with AsyncExitStack() as stack:
        # A server that runs as another user must find its own folder.
        place = Path(
            stack.enter_context(TemporaryDirectory(prefix="parley-history-", ignore_cleanup_errors=True))
        )
        place.chmod(0o711)
        stores = await asyncio.to_thread(Stores, place, own_mariadb=own_mariadb)
        stack.callback(stores.end)
        await asyncio.to_thread(stores.start)
        await stores.prepare()
        stack.push_async_callback(stores.forget)
        members = []
        for number, seconds in enumerate(clocks):
            relays = [await stack.enter_async_context(relay.open()) for relay in stores.relays()]
            members.append(_member(folder, number, stores.settings(relays), relays, seconds))
            stack.push_async_callback(asyncio.to_thread, members[-1].node.kill)
        await asyncio.to_thread(members[0].node.start)
        await asyncio.gather(*(asyncio.to_thread(member.node.start) for member in members[1:]))
        yield Cluster(stores, members)


def _member(folder: Path, number: int, settings: list[str], relays: list[Relay], ahead: int) -> Member:
    directory = folder / f"node-{number}"
    directory.mkdir()
    port = free_port()
    own = [
        f"plugins.plugins.auth.UserAuthPlugin.token_keys={folder / 'token_keys.json'}",
        f"listeners.default.bind={HOST}:{port}",
        f"node.id={number}",
        f"cluster.name=node-{number}",
    ]
    node = ClockedNode(directory, [*settings, *own], CONFIG)
    node.environment["WRONG_CLOCK"] = str(ahead)
    return Member(node, port, relays)
