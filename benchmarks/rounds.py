"""One benchmark run: rounds of workloads, the brokers taking turns in each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from statistics import median

import uvloop

from .brokers import Broker, StartError
from .loadgen import BenchmarkError
from .workloads import Effort, Sample, Workload


@dataclass(slots=True)
class Outcome:
    """The samples of one workload on one broker, and why there are no (more) of them.

    There is one for each round, from the first round on: after an error no more are taken.
    """

    workload: str
    broker: str
    samples: list[Sample] = field(default_factory=list)
    error: str | None = None

    def median(self) -> Sample:
        """The median of each figure by itself; None where nothing was measured."""
        return Sample(**{each.name: self._median(each.name) for each in fields(Sample)})

    def _median(self, name: str) -> float | None:
        values = [value for each in self.samples if (value := getattr(each, name)) is not None]
        return median(values) if values else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure; after `budget` seconds whatever is left is left out."""

    brokers: Sequence[Broker]
    workloads: Sequence[Workload]
    rounds: int
    effort: Effort
    budget: float

    def pairings(self, number: int = 0) -> list[tuple[Workload, Broker]]:
        """Round `number`: each workload on all brokers, so that ratios are taken close in time.

        Every other round takes the brokers in reverse (A B, B A, ...): being the first or the last,
        or a machine that gets slower and slower, favours none of them.
        """
        brokers = self.brokers if number % 2 == 0 else self.brokers[::-1]
        return [
            (workload, broker)
            for workload in self.workloads
            for broker in brokers
            if workload.durable or not broker.durable
        ]


def run(plan: Plan, announce: Callable[[str], None]) -> list[Outcome]:
    """Measure everything in `plan`; what fails is an Outcome with an error, not an exception."""
    end = time.monotonic() + plan.budget
    unavailable = {broker.name: broker.missing() for broker in plan.brokers}
    outcomes = {
        (workload.name, broker.name): Outcome(workload.name, broker.name)
        for workload, broker in plan.pairings()
    }
    for number in range(plan.rounds):
        for workload, broker in plan.pairings(number):
            outcome = outcomes[workload.name, broker.name]
            outcome.error = outcome.error or unavailable[broker.name]
            remaining = end - time.monotonic()
            if outcome.error or remaining <= 0:
                continue
            announce(f"round {number + 1} of {plan.rounds}: {workload.title}, {broker.name}")
            effort = replace(plan.effort, deadline=min(plan.effort.deadline, remaining))
            try:
                outcome.samples.append(_measure(workload, broker, effort))
            except StartError as error:
                # Waiting for it again in every other workload would use up the others' time.
                unavailable[broker.name] = outcome.error = str(error)
            except BenchmarkError as error:
                outcome.error = str(error)
    for outcome in outcomes.values():
        if not outcome.samples and not outcome.error:
            outcome.error = f"not run: the {plan.budget:.0f} s of the run were used up"
    return list(outcomes.values())


def _measure(workload: Workload, broker: Broker, effort: Effort) -> Sample:
    """Start `broker`, run `workload` on it, stop it."""

    async def measure() -> Sample:
        return await workload.measure(node, effort)

    with broker.start() as node:
        try:
            return uvloop.run(measure())
        except TimeoutError as error:
            raise BenchmarkError(f"timeout after {effort.deadline:.0f} s") from error
        except OSError as error:
            raise BenchmarkError(f"connection failed: {error}") from error
