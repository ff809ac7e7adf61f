"""What services ask of the broker concerns the connections of all nodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from broker.cluster.bridge import ClusterBridge
from broker.ports import Device, Identity, Whereabouts
from tests.unit.backplane_kit import Bus, BusBackplane


class Local:
    """One node's own, with the devices of some users: see `broker.ports.BrokerPort`."""

    def __init__(self, *users: str) -> None:
        self.users = users
        self.pushed: list[tuple[Sequence[str], Mapping[str, Any]]] = []
        self.publish = self.append = self.pace = self.emit = self.watch = None

    async def push(self, users: Sequence[str], event: Mapping[str, Any]) -> list[str]:
        self.pushed.append((users, event))
        return [user for user in users if user in self.users]

    async def devices(self, users: Sequence[str]) -> dict[str, list[str]]:
        return {user: ["phone"] for user in users if user in self.users}

    async def connections(self, user: str, after: str, limit: int) -> list[Device]:
        found = [Device(each, "phone", "127.0.0.1:1") for each in self.users if user in ("", each)]
        return [device for device in found if device.sort_key > after][:limit]

    async def kick(self, user: str) -> int:
        return self.users.count(user)

    async def renew(self, client_id: str, identity: Identity) -> bool:
        return identity.user in self.users

    async def stats(self) -> dict[str, int]:
        return {"clients_connected": len(self.users), "uptime_seconds": len(self.users)}


class Cluster:
    """Two nodes: alice and carol are connected to the first, bob to the second."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.locals = Local("alice", "carol"), Local("bob")
        names = "one", "two"
        self.backplanes = [BusBackplane(self.bus, name) for name in names]
        self.bridges = [
            ClusterBridge(local, backplane)  # type: ignore[arg-type]
            for local, backplane in zip(self.locals, self.backplanes, strict=True)
        ]
        for name, local in zip(names, self.locals, strict=True):
            for user in local.users:
                self.bus.devices[user] = {"phone": Whereabouts("phone", name, "c", 0)}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_connections_of_all_nodes_are_listed_with_their_nodes(cluster: Cluster) -> None:
    for bridge in cluster.bridges:
        listed = await bridge.connections("", "", 10)
        assert [(each.user, each.node) for each in listed] == [
            ("alice", "one"),
            ("bob", "two"),
            ("carol", "one"),
        ]
        assert [each.user for each in await bridge.connections("", "alice phone", 1)] == ["bob"]


async def test_a_user_is_kicked_wherever_they_are(cluster: Cluster) -> None:
    assert await cluster.bridges[0].kick("bob") == 1
    assert await cluster.bridges[1].kick("alice") == 1


async def test_figures_are_the_sums(cluster: Cluster) -> None:
    assert await cluster.bridges[1].stats() == {"clients_connected": 3, "uptime_seconds": 1}


async def test_a_push_goes_once_to_each_node_that_has_a_user(cluster: Cluster) -> None:
    asked = ["bob", "nobody", "carol", "alice"]
    trips = cluster.bus.trips
    assert await cluster.bridges[0].push(asked, {"event": "push"}) == ["bob", "carol", "alice"]
    assert cluster.bus.trips == trips + 1
    one, two = cluster.locals
    assert [sorted(users) for users, _ in one.pushed] == [["alice", "carol"]]
    assert two.pushed == [(["bob"], {"event": "push"})]


async def test_a_push_reaches_nobody_on_a_node_that_has_died(cluster: Cluster) -> None:
    del cluster.bus.mail["two"]
    assert await cluster.bridges[0].push(["alice", "bob"], {"event": "push"}) == ["alice"]


async def test_a_push_reaches_all_while_it_is_unknown_who_is_where(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(_users: Sequence[str]) -> None:
        return None

    monkeypatch.setattr(cluster.backplanes[0].devices, "of", unknown)
    assert await cluster.bridges[0].push(["bob", "nobody", "alice"], {"event": "push"}) == ["bob", "alice"]


async def test_devices_of_a_thousand_users_take_one_round_trip(cluster: Cluster) -> None:
    trips = cluster.bus.trips
    users = [f"u{n}" for n in range(998)]
    assert await cluster.bridges[1].devices([*users, "alice", "bob"]) == {
        "alice": ["phone"],
        "bob": ["phone"],
    }
    assert cluster.bus.trips == trips + 1
