"""Which faults happen when: derived from a seed, and from nothing else."""

import random
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What happens."""

    KILL = "a node is killed and started again"
    FREEZE = "a node is frozen and thawed"
    CUT = "a node is cut off from the stores and comes back"
    REDIS_EMPTIED = "Redis is restarted empty"
    REDIS_FROZEN = "Redis is frozen and thawed"
    REDIS_AWAY = "Redis is away and comes back"
    MONGODB_KILLED = "the MongoDB server is killed and started again"
    MARIADB_RESTARTED = "MariaDB is restarted"


SECONDS = {
    Kind.KILL: (0.0, 2.0),
    Kind.FREEZE: (50.0, 50.0),  # past every lease: that of a living node is 40 s, and others look each 5 s
    Kind.CUT: (20.0, 20.0),
    Kind.REDIS_EMPTIED: (0.0, 0.0),
    Kind.REDIS_FROZEN: (5.0, 5.0),
    Kind.REDIS_AWAY: (30.0, 30.0),
    Kind.MONGODB_KILLED: (0.5, 3.0),
    Kind.MARIADB_RESTARTED: (0.0, 2.0),
}
"""How long it lasts: at least, and at most."""

BETWEEN = (0.5, 4.0)
"""Seconds from the end of a fault to the next one."""


class Fault(NamedTuple):
    """Something that happens `after` seconds without a fault, and lasts for `seconds`."""

    after: float
    kind: Kind
    node: int
    """Which node, if it happens to one."""
    seconds: float

    def __str__(self) -> str:
        which = f" (node {self.node})" if self.kind in (Kind.KILL, Kind.FREEZE, Kind.CUT) else ""
        return f"after {self.after:.1f} s, {self.kind}{which}: {self.seconds:.1f} s"


def plan(seed: int, kinds: Sequence[Kind], count: int, nodes: int, most_seconds: float = 60.0) -> list[Fault]:
    """`count` faults, one after the other. Each kind has its turn before one comes again. None lasts longer
    than `most_seconds`."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    coming: list[Kind] = []
    for _ in range(count):
        if not coming:
            coming = chance.sample(kinds, len(kinds))
        kind = coming.pop()
        seconds = min(chance.uniform(*SECONDS[kind]), most_seconds)
        faults.append(Fault(chance.uniform(*BETWEEN), kind, chance.randrange(nodes), seconds))
    return faults
