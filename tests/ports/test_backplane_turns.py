"""Turns on Redis: who appends to which logs."""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
import redis

from broker.ports import Head
from plugins.backplane.redis import RedisBackplane
from tests.ports.backplanes import Nodes
from tests.servers.redis import own, server_url


async def test_a_group_gets_all_its_logs_or_none() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        assert (await a.turns.take([["x"], ["y", "z"]])).granted == [True, True]
        taken = await b.turns.take([["free", "y"], ["other"], ["free"]])
        assert taken.granted == [False, True, False]  # what waits is before what comes later
        assert (await a.turns.take([["free"]])).granted == [True]


async def test_heads_are_what_the_last_writer_has_committed() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        assert (await a.turns.take([["x", "y", "z"]])).heads == {}
        a.turns.give_back({"x": Head(7, 5, 6), "y": Head(1 << 40), "z": None})
        taken = await a.turns.take([["x"]])
        assert taken.heads == {"x": Head(7, 5, 6)}
        taken = await b.turns.take([["x"], ["y", "z"]])
        assert taken.granted == [False, True]
        assert taken.heads == {"y": Head(1 << 40)}
        b.turns.give_back({"y": None, "z": Head(3)})
        assert (await b.turns.take([["y", "z"]])).heads == {"z": Head(3)}


async def test_whoever_waits_first_is_told_and_has_the_log_kept() -> None:
    async with Nodes() as nodes:
        a, b, c = [await nodes.open(name) for name in "abc"]
        assert (await a.turns.take([["x"]])).granted == [True]
        assert (await b.turns.take([["x"]])).granted == [False]
        assert (await c.turns.take([["x"]])).granted == [False]
        a.turns.give_back({"x": Head(1)})
        assert (await a.turns.take([["x"]])).granted == [False]  # it is the last in the line now
        started = time.monotonic()
        await b.turns.freed()
        assert time.monotonic() - started < 0.5
        assert (await b.turns.take([["x"]])).granted == [True]
        b.turns.give_back({"x": Head(2)})
        await c.turns.freed()
        taken = await c.turns.take([["x"]])
        assert (taken.granted, taken.heads) == ([True], {"x": Head(2)})


async def test_a_log_is_not_kept_for_long_for_one_that_does_not_come() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        assert (await a.turns.take([["x"]])).granted == [True]
        assert (await b.turns.take([["x"]])).granted == [False]
        a.turns.give_back({"x": Head(1)})
        started = time.monotonic()
        await until_granted(a, ["x"])
        assert time.monotonic() - started < 0.8


async def test_a_turn_is_renewed_while_it_is_held_and_lapses_with_its_node() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        assert (await a.turns.take([["x"]])).granted == [True]
        for _ in range(3):
            assert (await b.turns.take([["x"]])).granted == [False]
            await asyncio.sleep(0.5)
        await a.close()
        assert (await b.turns.take([["x"]])).granted == [True]


async def test_a_node_that_was_started_again_has_no_turn_of_its_earlier_process() -> None:
    async with Nodes() as nodes, Nodes() as again:
        a = await nodes.open("a")
        assert (await a.turns.take([["x"]])).granted == [True]
        again.options = nodes.options
        later = await again.open("b")
        as_before = later.turns.__class__(nodes.options, "a")
        as_before.start()
        await as_before.calls.wire.opened()
        assert (await as_before.take([["x"]])).granted == [False]
        await as_before.close()


async def test_a_lapsed_turn_writes_no_head_and_a_later_one_no_lower() -> None:
    async with Nodes() as nodes:
        a, b = await nodes.open("a"), await nodes.open("b")
        await a.turns.take([["x", "y"]])
        lapse(nodes, "x", "y")
        assert (await b.turns.take([["x", "y"]])).granted == [True]
        b.turns.give_back({"x": Head(5), "y": Head(5)})
        await b.turns.take([])
        a.turns.give_back({"x": Head(4), "y": Head(6)})
        # What is below is ignored. What is above shows that the head in Redis is too low.
        assert (await a.turns.take([["x", "y"]])).heads == {"x": Head(5)}


async def test_a_process_that_stood_still_past_its_lease_asks_again() -> None:
    """Others may have written meanwhile: what it was told before is out of date."""
    async with Nodes() as nodes:
        a = await nodes.open("a")
        await a.turns.take([["x"]])
        a.turns.give_back({"x": Head(1)})
        await a.turns.take([])
        taking = asyncio.create_task(a.turns.take([["x"]]))
        await asyncio.sleep(0)
        with redis.Redis.from_url(server_url()) as client:
            key = f"{nodes.options.prefix}{{turn}}::x"
            time.sleep(1.1)  # noqa: ASYNC251  # the whole process stands still
            client.hset(key, mapping={"owner": "b#1", "head": msgspec.msgpack.encode(Head(2)), "until": "0"})
        taken = await taking
        assert (taken.granted, taken.heads) == ([True], {"x": Head(2)})


async def test_what_is_known_of_another_store_does_not_count() -> None:
    """A store that was restored has lower heads."""
    async with Nodes(store="one.1") as nodes:
        a = await nodes.open("a")
        await a.turns.take([["x"]])
        a.turns.give_back({"x": Head(9)})
        assert (await a.turns.take([["x"]])).heads == {"x": Head(9)}
        nodes.options = msgspec.structs.replace(nodes.options, store="one.2")
        assert (await (await nodes.open("b")).turns.take([["x"]])).heads == {}


async def test_a_turn_and_the_next_cost_one_round_trip(tmp_path: Path) -> None:
    server, url = own(tmp_path)  # where nobody else runs scripts
    server.start()
    try:
        async with Nodes(url) as nodes:
            a = await nodes.open("a")
            await a.turns.take([["x"]])
            calls = count_scripts(url)
            a.turns.give_back({"x": Head(1)})
            assert (await a.turns.take([["x"]])).heads == {"x": Head(1)}
            assert count_scripts(url) - calls == 1
    finally:
        server.end()


@pytest.mark.parametrize("seed", range(2))
async def test_what_three_nodes_take_and_give(seed: int) -> None:
    """No two hold one log, all get their turns, heads never fall, and what waits keeps its order."""
    chance = random.Random(seed)
    logs = [f"log-{number}" for number in range(6)]
    holders: dict[str, str] = {}
    heads = dict.fromkeys(logs, 0)

    async def write(node: RedisBackplane, turns: int) -> None:
        waiting: list[tuple[int, Sequence[str]]] = []
        done: dict[str, int] = {}
        for number in range(turns):
            waiting.append((number, chance.sample(logs, chance.choice([1, 1, 2, 3]))))
            if chance.random() < 0.5 and number < turns - 1:
                continue
            while waiting:
                taken = await node.turns.take([group for _, group in waiting])
                mine = [each for each, granted in zip(waiting, taken.granted, strict=True) if granted]
                waiting = [each for each in waiting if each not in mine]
                held = {log for _, group in mine for log in group}
                for log in held:
                    assert holders.setdefault(log, node.name) == node.name
                    assert taken.heads.get(log, Head(0)).offset in (0, heads[log])
                for at, group in mine:
                    for log in group:
                        assert done.get(log, -1) < at
                        done[log] = at
                        heads[log] += 1
                await asyncio.sleep(chance.random() * 0.004)
                for log in held:
                    del holders[log]
                node.turns.give_back({log: Head(heads[log]) for log in held})
                if not mine:
                    await node.turns.freed()
                elif chance.random() < 0.7:
                    break

    async with Nodes() as nodes:
        opened = [await nodes.open(name) for name in "abc"]
        async with asyncio.timeout(30):
            await asyncio.gather(*(write(node, 120) for node in opened))
        taken = await opened[0].turns.take([logs])
        while not all(taken.granted):
            await opened[0].turns.freed()
            taken = await opened[0].turns.take([logs])
        assert {log: head.offset for log, head in taken.heads.items()} == heads


async def until_granted(node: RedisBackplane, group: Sequence[str]) -> None:
    for _ in range(500):
        if all((await node.turns.take([group])).granted):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{node.name} never got {group}")


def lapse(nodes: Nodes, *logs: str) -> None:
    """As if the holder had not renewed its turns."""
    with redis.Redis.from_url(server_url()) as client:
        for log in logs:
            client.hset(f"{nodes.options.prefix}{{turn}}::{log}", "until", "0")


def count_scripts(url: str) -> int:
    """How many have run."""
    with redis.Redis.from_url(url) as client:
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])
