"""Where users are connected, as Redis knows it."""

import asyncio
import json
import time

import redis

from broker.ports import Whereabouts
from plugins.backplane.redis import RedisBackplane
from tests.ports.backplanes import Nodes, until
from tests.servers.redis import server_url


def device(node: str, client_id: str = "phone", connection: str = "c1") -> Whereabouts:
    return Whereabouts(client_id, node, connection, 1_764_000_000_123)


async def test_devices_are_known_on_all_nodes() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        placed = await a.devices.connected("alice", device("a"))
        assert placed is not None
        assert (placed.devices, placed.instead_of) == (1, None)
        placed = await b.devices.connected("alice", device("b", 'a "quoted" / näme', "c2"))
        assert placed is not None
        assert (placed.devices, placed.instead_of) == (2, None)
        found = await a.devices.of(["alice", "nobody"])
        assert found is not None
        assert list(found) == ["alice"]
        assert sorted(found["alice"], key=str) == sorted(
            [device("a"), device("b", 'a "quoted" / näme', "c2")], key=str
        )
        with redis.Redis.from_url(server_url()) as client:
            stored = json.loads(client.hget(f"{nodes.options.prefix}online:users", "alice"))
        assert stored["phone"] == {
            "gateway": "a",
            "connection_id": "c1",
            "connected_at": 1_764_000_000_123,
        }


async def test_a_later_connection_of_a_device_counts() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        await a.devices.connected("alice", device("a"))
        placed = await b.devices.connected("alice", device("b", connection="c2"))
        assert placed is not None
        assert (placed.devices, placed.instead_of) == (1, device("a"))
        assert await a.devices.disconnected("alice", "phone", "c1") == 1  # not this one any more
        assert await b.devices.disconnected("alice", "phone", "c2") == 0
        assert await b.devices.disconnected("alice", "phone", "c2") == 0
        assert await a.devices.of(["alice"]) == {}


async def test_calls_take_effect_in_their_order() -> None:
    async with Nodes() as nodes:
        a = await nodes.open("a")
        for number in range(200):
            name = f"c{number}"
            counts = await asyncio.gather(
                a.devices.connected("alice", device("a", connection=name)),
                a.devices.disconnected("alice", "phone", name),
            )
            assert counts[1] == 0
        assert await a.devices.of(["alice"]) == {}


async def test_a_thousand_users_are_asked_for_in_one_round_trip() -> None:
    async with Nodes() as nodes:
        a = await nodes.open("a")
        users = [f"user-{number}" for number in range(1000)]
        await connect_all(a, users[::2])
        found = await a.devices.of(users)
        assert found is not None
        assert list(found) == users[::2]


async def test_the_devices_of_a_node_that_is_gone_are_forgotten_in_steps() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        users = [f"user-{number}" for number in range(3000)]
        await connect_all(a, users)
        await connect_all(b, users[:1000], "tablet")
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                started = time.monotonic()
                await a.devices.of(["user-1"])
                longest = max(longest, time.monotonic() - started)

        watching = asyncio.create_task(watch())
        remaining = await b.devices.forget("a")
        watching.cancel()
        assert remaining == {user: int(number < 1000) for number, user in enumerate(users)}
        assert longest < 0.5
        found = await b.devices.of(users[990:1010])
        assert found is not None
        assert sorted(found) == sorted(users[990:1000])
        assert await b.devices.forget("a") == {}


async def test_an_emptied_redis_is_told_of_devices_again() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        users = [f"user-{number}" for number in range(1200)]
        await connect_all(a, users)
        await connect_all(b, ["bob"])
        await a.members.beat()
        forget_all(nodes)
        await a.members.look()
        await b.members.look()
        await until(lambda: nodes.ends["a"].story == nodes.ends["b"].story == ["returned"])
        found = await b.devices.of([*users[:900], "bob"])
        assert found is not None
        assert len(found) == 901
        members = await b.members.all()
        assert members is not None


async def test_what_has_changed_while_redis_was_away_is_told_when_it_is_back() -> None:
    """Devices that went, that came, and that have moved to another node meanwhile."""
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        for user in ("stays", "goes", "moves"):
            await a.devices.connected(user, device("a"))
        cut(a)
        assert await a.devices.disconnected("goes", "phone", "c1") is None
        assert await a.devices.connected("comes", device("a")) is None
        assert await a.devices.of(["comes"]) is None
        await b.devices.connected("moves", device("b", connection="c2"))
        await a.devices.calls.wire.opened()
        await a.devices.tell_again()
        found = await b.devices.of(["stays", "goes", "comes", "moves"])
        assert found == {
            "stays": [device("a")],
            "comes": [device("a")],
            "moves": [device("b", connection="c2")],
        }


async def test_a_node_that_ends_leaves_no_devices() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        await connect_all(a, ["alice", "bob"])
        await a.close()
        assert await b.devices.of(["alice", "bob"]) == {}


async def connect_all(node: RedisBackplane, users: list[str], client_id: str = "phone") -> None:
    await asyncio.gather(*(node.devices.connected(user, device(node.name, client_id)) for user in users))


def cut(node: RedisBackplane) -> None:
    """The connection for devices is lost."""
    node.devices.calls.wire.give_up()
    node.devices.calls.wire._transport = None


def forget_all(nodes: Nodes) -> None:
    """As a restart of Redis does, for the keys of these nodes."""
    with redis.Redis.from_url(server_url()) as client:
        client.delete(*client.keys(f"{nodes.options.prefix}*"))
