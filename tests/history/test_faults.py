"""Histories of a cluster whose nodes and stores fail. `HISTORY_SEED` repeats a seed that has failed."""

import asyncio
import datetime
import os
from pathlib import Path

import pytest

from tests.history.__main__ import summary
from tests.history.checks import violations
from tests.history.cluster import NODES, Cluster, cluster
from tests.history.driver import Traffic, drive, save
from tests.history.plan import Fault, Kind, plan

USERS = 6


def seed_of(day: datetime.date) -> int:
    return int(os.environ.get("HISTORY_SEED") or day.toordinal())


async def check(tmp_path: Path, nodes: Cluster, seed: int, faults: list[Fault], traffic: Traffic) -> None:
    """Let the faults happen to a cluster under traffic. Nothing may be wrong with its history."""
    print(f"seed {seed}:", *faults, sep="\n  ", flush=True)
    people = await asyncio.to_thread(nodes.people, USERS)
    run = await drive(nodes.addresses, people, traffic, seed, lambda: nodes.suffer(faults))
    run.may_repeat = bool(faults)
    print(summary(run), flush=True)
    found = violations(run)
    if found or nodes.ended():
        save(run, str(tmp_path / "run.json"))
        wrong = "\n".join(map(str, [*found[:20], *nodes.ended()]))
        pytest.fail(f"seed {seed}, recorded in {tmp_path / 'run.json'}:\n{wrong}", pytrace=False)


SHORT = (Kind.KILL, Kind.REDIS_EMPTIED, Kind.REDIS_FROZEN, Kind.MONGODB_KILLED, Kind.CUT)


async def test_the_seed_of_today(tmp_path: Path) -> None:
    """Three faults, other ones each day."""
    seed = seed_of(datetime.datetime.now(datetime.UTC).date())
    faults = plan(seed, SHORT, 3, NODES, most_seconds=2.0)
    async with cluster(tmp_path) as nodes:
        await check(tmp_path, nodes, seed, faults, Traffic(8.0, pause=0.15))


ROUNDS = {
    Kind.KILL: 50,
    Kind.FREEZE: 2,
    Kind.CUT: 3,
    Kind.REDIS_EMPTIED: 10,
    Kind.REDIS_FROZEN: 4,
    Kind.REDIS_AWAY: 2,
    Kind.MONGODB_KILLED: 10,
    Kind.MARIADB_RESTARTED: 5,
}
assert ROUNDS.keys() == set(Kind)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name.lower())
async def test_each_fault(tmp_path: Path, kind: Kind) -> None:
    seed = seed_of(datetime.date.min)
    faults = plan(seed, [kind], int(os.environ.get("HISTORY_ROUNDS") or ROUNDS[kind]), NODES)
    seconds = sum(fault.after + fault.seconds for fault in faults) + 2
    async with cluster(tmp_path, own_mariadb=kind is Kind.MARIADB_RESTARTED) as nodes:
        await check(tmp_path, nodes, seed, faults, Traffic(seconds))


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_all_faults(tmp_path: Path) -> None:
    seed = seed_of(datetime.datetime.now(datetime.UTC).date())
    faults = plan(seed, list(Kind), 2 * len(Kind), NODES)
    seconds = sum(fault.after + fault.seconds for fault in faults) + 2
    async with cluster(tmp_path, own_mariadb=True) as nodes:
        await check(tmp_path, nodes, seed, faults, Traffic(seconds))


@pytest.mark.long
async def test_clocks_ten_minutes_apart(tmp_path: Path) -> None:
    """Nothing fails, so that readers with QoS 2 get everything once."""
    async with cluster(tmp_path, clocks=(0, 600, -600)) as nodes:
        await check(tmp_path, nodes, seed_of(datetime.date.min), [], Traffic(20.0))
