"""Measures the working tree and the tree of a git revision in turns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

from .brokers import PROVISION_SECONDS, START_SECONDS, Broker, Parley, ParleyDurable, StartError
from .comparison import Comparison, compare
from .loadgen import BenchmarkError
from .rounds import Outcome, Plan, run
from .trees import WORKING_TREE, Tree, unpack
from .workloads import Effort, Workload, pair_users

BROKERS = (Parley.name, ParleyDurable.name)
# The time a measurement takes beside its interval: start, warm-up, settling, stop.
MEASUREMENT_SECONDS = 1.5
# The time a node takes before the rounds: its first start, and creating users if it has any.
FIRST_START_SECONDS = 3.0
USERS_SECONDS = 30.0
# The budget is this multiple of the estimate, so that all rounds fit on a slower machine, too.
PATIENCE = 3.0


@dataclass(frozen=True, slots=True)
class Request:
    """A comparison with the working tree: see `python -m benchmarks --help`."""

    revision: str
    brokers: Sequence[str]
    workloads: Sequence[Workload]
    rounds: int
    effort: Effort
    threshold: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a comparison. `other` is the short hash of the other tree's commit. `versions` maps
    each broker in the outcomes to its tree.
    """

    other: str
    versions: dict[str, str]
    outcomes: list[Outcome]
    comparisons: list[Comparison]


def measure(
    request: Request, home: Path, say: Callable[[str], None], announce: Callable[[str], None]
) -> Result:
    """Compare the trees. All files are written to `home`, which the caller removes.

    `say` gets the one line to print, `announce` each step for the status line. Failures in the rounds are
    recorded in the comparisons.

    Raises:
        RevisionError: there is no such revision.
        StartError: the node of a tree does not start, or imports modules of another tree.
        BenchmarkError: the requested brokers can run none of the requested workloads.
    """
    other = unpack(request.revision, home / "tree")
    plan = _plan(request, home, other)
    say(f"comparing the working tree with {other.label}: {_forecast(plan)}")
    for tree in (WORKING_TREE, other):
        tree.compile()
    _start_once(plan, announce)
    outcomes = run(plan, announce)
    versions = {broker.name: broker.version() for broker in plan.brokers}
    comparisons = compare(outcomes, request.rounds, request.threshold)
    return Result(other.label, versions, outcomes, comparisons)


def _plan(request: Request, home: Path, other: Tree) -> Plan:
    """A plan with pairs of brokers, the working tree's first, as `compare` needs them."""
    brokers: list[Broker] = []
    trees = ((WORKING_TREE, home / "ours"), (other, home / "theirs"))
    for _, directory in trees:
        directory.mkdir()
    if Parley.name in request.brokers:
        brokers += [Parley(directory / Parley.name, tree) for tree, directory in trees]
    if ParleyDurable.name in request.brokers:
        users = pair_users()
        brokers += [ParleyDurable(directory / ParleyDurable.name, users, tree) for tree, directory in trees]
    plan = Plan(brokers, request.workloads, request.rounds, request.effort, budget=0)
    if not plan.pairings():
        raise BenchmarkError(f"{' and '.join(request.brokers)} can run none of these workloads")
    return replace(plan, budget=_seconds(plan) * PATIENCE)


def _seconds(plan: Plan) -> float:
    """The estimated duration of the rounds in seconds."""
    return plan.rounds * len(plan.pairings()) * (plan.effort.seconds + MEASUREMENT_SECONDS)


def _forecast(plan: Plan) -> str:
    """The estimated and the longest duration, as text."""
    brokers = _used(plan)
    durable = sum(broker.durable for broker in brokers)
    usual = _seconds(plan) + len(brokers) * FIRST_START_SECONDS + durable * USERS_SECONDS
    most = plan.budget + len(brokers) * START_SECONDS + durable * PROVISION_SECONDS
    rounds = "1 round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    return f"{rounds} of {len(plan.pairings())} measurements, about {_time(usual)}, at most {_time(most)}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{ceil(seconds / 60)} min"


def _used(plan: Plan) -> list[Broker]:
    return list(dict.fromkeys(broker for _, broker in plan.pairings()))


def _start_once(plan: Plan, announce: Callable[[str], None]) -> None:
    """Start and stop every node once, unmeasured, so that the extra work of a first start (creating the
    stores, the users) is not measured. StartError if a tree cannot be measured at all, before the rounds
    take their time.
    """
    for broker in _used(plan):
        announce(f"first start of {broker.name}")
        try:
            with broker.start():
                pass
        except StartError as error:
            raise StartError(f"{broker.name}: {error}") from None
