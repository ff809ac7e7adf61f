"""Which nodes live, as Redis knows it."""

import asyncio

import pytest
import redis

from broker.domain.errors import StoreError
from broker.ports import Member, Whereabouts
from tests.ports.backplanes import Nodes, until
from tests.servers.redis import server_url


def member(name: str) -> Member:
    return Member(name, 7, "all", 4711, "host-1", "1.2.3", {"default": "127.0.0.1:1883"}, 1_764_000_000_000)


async def test_nodes_know_each_other_until_they_end() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        assert await a.members.all() == []  # nobody is ready to be known
        for node in (b, a):
            await node.members.announce(member(node.name))
        assert await a.members.all() == [member("a"), member("b")]
        with redis.Redis.from_url(server_url()) as client:
            assert 30 < client.ttl(f"{nodes.options.prefix}heartbeat:a") <= 40
        await b.close()
        assert await a.members.all() == [member("a")]


async def test_a_second_process_with_a_name_is_refused() -> None:
    async with Nodes() as nodes:
        a = await nodes.open("a")
        await a.members.announce(member("a"))
        with pytest.raises(StoreError, match=r"another node is called 'a' \(pid 4711 on host-1\)"):
            await nodes.open("a")
        assert await a.members.all() == [member("a")]


async def test_a_node_that_died_is_started_again_at_once() -> None:
    """Its earlier devices are gone, which is told once the node is ready to hear of it."""
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        await a.members.announce(member("a"))
        for user in ("alice", "bob"):
            await a.devices.connected(user, Whereabouts("phone", "a", "c1", 1))
        await b.devices.connected("bob", Whereabouts("tablet", "b", "c1", 1))
        stop(a)
        again = await nodes.open("a")
        assert sorted(await b.devices.of(["alice", "bob"]) or ()) == ["bob"]
        told: list[tuple[str, dict[str, int] | None]] = []

        async def gone(name: str) -> None:
            told.append((name, await again.devices.forget(name)))

        again.members.on_gone(gone)
        await again.devices.connected("alice", Whereabouts("phone", "a", "c2", 2))
        await again.members.announce(member("a"))
        assert told == [("a", {"alice": 1, "bob": 1})]
        # The earlier one stood still only. It notices that it has been replaced.
        replaced: list[str] = []
        a.members.on_replaced(lambda: replaced.append("a"))
        await a.members.beat()
        await a.members.beat()
        assert replaced == ["a"]
        assert await b.members.all() == [member("a")]


async def test_one_node_cleans_up_after_another_and_again_if_it_fails() -> None:
    async with Nodes() as nodes:
        a, b, c = [await nodes.open(name) for name in "abc"]
        for node in (a, b, c):
            await node.members.announce(member(node.name))
        told: list[tuple[str, str]] = []
        fails = [True]

        def tell(by: str) -> None:
            async def gone(name: str) -> None:
                await asyncio.sleep(0.05)
                told.append((by, name))
                if fails:
                    fails.pop()
                    raise StoreError("no")

            {"b": b, "c": c}[by].members.on_gone(gone)

        tell("b")
        tell("c")
        stop(a)
        with redis.Redis.from_url(server_url()) as client:
            client.delete(f"{nodes.options.prefix}heartbeat:a")
            results = await asyncio.gather(b.members.look(), c.members.look(), return_exceptions=True)
            assert sum(isinstance(result, StoreError) for result in results) == 1
            await b.members.look()
            assert len(told) == 1  # the lock is kept for a while
            client.delete(f"{nodes.options.prefix}sweep:a")
        await asyncio.gather(b.members.look(), c.members.look())
        assert [name for _, name in told] == ["a", "a"]
        await asyncio.gather(b.members.look(), c.members.look())
        assert len(told) == 2
        assert [each.name for each in await b.members.all() or ()] == ["b", "c"]


async def test_a_node_that_stood_still_until_it_was_gone_tells_all_again() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        for node in (a, b):
            await node.members.announce(member(node.name))
        await a.devices.connected("alice", Whereabouts("phone", "a", "c1", 1))

        async def gone(name: str) -> None:
            assert await b.devices.forget(name) == {"alice": 0}

        b.members.on_gone(gone)
        with redis.Redis.from_url(server_url()) as client:
            client.delete(f"{nodes.options.prefix}heartbeat:a")
        await b.members.look()
        assert await b.devices.of(["alice"]) == {}
        await a.members.beat()
        await until(lambda: nodes.ends["a"].story == ["returned"])
        assert list(await b.devices.of(["alice"]) or ()) == ["alice"]
        assert [each.name for each in await b.members.all() or ()] == ["a", "b"]


async def test_what_a_newer_release_says_of_a_node_is_understood() -> None:
    async with Nodes() as nodes:
        a = await nodes.open("a")
        await a.members.announce(member("a"))
        prefix = nodes.options.prefix
        newer = (
            b'{"process": "p", "beats": 1, "added": 1, "member": {"name": "b", "number": 1, "role": "new",'
            b' "pid": 1, "host": "h", "version": "9", "addresses": {}, "started_at": 1, "added": true}}'
        )
        with redis.Redis.from_url(server_url()) as client:
            client.set(f"{prefix}heartbeat:b", newer)
            client.set(f"{prefix}heartbeat:c", b'{"all": "new"}')
            client.sadd(f"{prefix}nodes", "b", "c")
        assert [each.name for each in await a.members.all() or ()] == ["a", "b"]


def stop(node: object) -> None:
    """As if the process stood still, or were dead: it does and answers nothing."""
    node.members._mail.on("beat", lambda _node, _body: None)  # type: ignore[attr-defined]
