"""A benchmark run: rounds of workloads, in which the brokers take turns."""

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
    """The samples of one workload on one broker, and the error that ended them, if any.

    There is one sample per round, from the first round on. After an error no more are taken.
    """

    workload: str
    broker: str
    samples: list[Sample] = field(default_factory=list)
    error: str | None = None

    def median(self) -> Sample:
        """The median of each figure by itself; None for a figure that was not measured."""
        return Sample(**{each.name: self._median(each.name) for each in fields(Sample)})

    def _median(self, name: str) -> float | None:
        values = [value for each in self.samples if (value := getattr(each, name)) is not None]
        return median(values) if values else None


@dataclass(frozen=True, slots=True)
class Plan:
    """The measurements to take. Those that would begin after `budget` seconds are left out."""

    brokers: Sequence[Broker]
    workloads: Sequence[Workload]
    rounds: int
    effort: Effort
    budget: float

    def pairings(self, number: int = 0) -> list[tuple[Workload, Broker]]:
        """The measurements of round `number`: each workload on all brokers, so that the values of a ratio
        are measured shortly after each other.

        Every other round takes the brokers in reverse (A B, B A, ...). So neither the position in the round
        nor a machine that gets slower and slower favours a broker.
        """
        brokers = self.brokers if number % 2 == 0 else self.brokers[::-1]
        return [
            (workload, broker)
            for workload in self.workloads
            for broker in brokers
            if workload.durable or not broker.durable
        ]


def run(plan: Plan, announce: Callable[[str], None]) -> list[Outcome]:
    """Take all measurements of a plan. A failure is an Outcome with an error, not an exception."""
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
                # Waiting for it again in each workload would use up the time of the other brokers.
                unavailable[broker.name] = outcome.error = str(error)
            except BenchmarkError as error:
                outcome.error = str(error)
    for outcome in outcomes.values():
        if not outcome.samples and not outcome.error:
            outcome.error = f"not run: the run's budget of {plan.budget:.0f} s was used up"
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
