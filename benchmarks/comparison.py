"""Two trees compared: paired ratios, their spread, and what may be concluded from them.

Each round measures both trees one right after the other, so the ratio within a round is nearly free
of what the machine does over minutes. Only these paired ratios are judged; the ratio of the two
medians is reported beside them and decides nothing.

The test is the sign test, in its form as an exact confidence interval of the median: if the trees
were equal, the ratios of n rounds would fall above or below 1 like n coins. The d-th smallest and
the d-th largest ratio enclose the true median in at least 95 % of all runs, for the largest d
that the binomial distribution allows (d = 2 of 10: one disturbed round on either side does no
harm). That assumes that the rounds are independent, and nothing about how their noise is
distributed. The quartiles are reported as the spread and decide nothing: with ten rounds of two
equal trees they lie on one side of 1 every seventh time, this interval every fiftieth.

Fewer than six coins cannot be conclusive. For two to five rounds the interval is Student's, of the
logarithms of the ratios: exact if these are normally distributed, and wide. One round is a figure
without a spread, and yields no verdict.

A tree is worse when the whole interval lies on the worse side of 1 and the median ratio is worse
by more than a threshold, so that what is certain but does not matter is not reported. `same` says
that no difference was found beyond the spread; how small a difference would have been found is
what the interval shows. Each figure is tested by itself. With ten rounds of two equal trees each
one is called worse in one run of a hundred, so one of a full run's sixteen in one run of six or
more: a single figure that is barely worse is to be measured again, by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import comb, exp, log, sqrt
from statistics import fmean, median, quantiles, stdev

from .rounds import Outcome
from .workloads import Sample

CONFIDENCE = 0.95
SIGN_TEST_ROUNDS = 6
# Student's t for CONFIDENCE, two-sided, by the number of rounds.
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


class Verdict(StrEnum):
    """What a figure of the working tree is, beside that of the other tree."""

    SLOWER = "slower"
    FASTER = "faster"
    LARGER = "larger"
    SMALLER = "smaller"
    SAME = "same"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Figure:
    """A field of Sample that is compared, its heading, and the verdicts on it."""

    field: str
    heading: str
    worse: Verdict
    better: Verdict
    more_is_better: bool = False


SPEED = (
    Figure("cpu_us", "CPU µs", Verdict.SLOWER, Verdict.FASTER),
    Figure("rate", "per second", Verdict.SLOWER, Verdict.FASTER, more_is_better=True),
)
MEMORY = (
    Figure("idle_mb", "idle node, MB", Verdict.LARGER, Verdict.SMALLER),
    Figure("connection_kb", "KB per client", Verdict.LARGER, Verdict.SMALLER),
)


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` to `high`, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one workload on both trees.

    `ours` (the working tree's) and `theirs` hold the values of the same rounds, in order, all of
    them above 0. `error` says why there are none, or too few. `limited`: a rate that
    the load generator set, not the broker.
    """

    workload: str
    broker: str
    figure: Figure
    ours: Sequence[float]
    theirs: Sequence[float]
    verdict: Verdict
    error: str | None = None
    limited: bool = False

    @property
    def ratios(self) -> list[float]:
        """Ours to theirs, round by round."""
        return paired_ratios(self.ours, self.theirs)

    @property
    def failed(self) -> bool:
        """Whether the working tree is worse here, or was not measured as asked for."""
        return self.error is not None or self.verdict is self.figure.worse


def compare(outcomes: Sequence[Outcome], rounds: int, threshold: float) -> list[Comparison]:
    """Compare the outcomes of each workload, which come in twos: the working tree's, the other's.

    `rounds` is how many samples each should have; `threshold` the relative difference (0.01: one
    per cent) up to which a figure counts as the same.
    """
    return [
        _compare(ours, theirs, figure, rounds, threshold)
        for ours, theirs in zip(outcomes[::2], outcomes[1::2], strict=True)
        for figure in (MEMORY if ours.workload == "idle" else SPEED)
    ]


def _compare(ours: Outcome, theirs: Outcome, figure: Figure, rounds: int, threshold: float) -> Comparison:
    pairs = [
        (our, their)
        for our_sample, their_sample in zip(ours.samples, theirs.samples, strict=False)
        if (our := _value(our_sample, figure)) and (their := _value(their_sample, figure))
    ]
    our_values = [our for our, _ in pairs]
    their_values = [their for _, their in pairs]
    errors = [f"{each.broker}: {each.error}" for each in (ours, theirs) if each.error]
    if not errors and len(pairs) < rounds:
        errors = [f"measured in {len(pairs)} of {rounds} rounds only"]
    elif not errors and rounds == 1:
        errors = ["one round has no spread, so there is no verdict"]
    return Comparison(
        workload=ours.workload,
        broker=ours.broker,
        figure=figure,
        ours=our_values,
        theirs=their_values,
        verdict=judge(paired_ratios(our_values, their_values), figure, threshold),
        error="; ".join(errors) or None,
        limited=figure.more_is_better and any(each.median().generator_limited for each in (ours, theirs)),
    )


def _value(sample: Sample, figure: Figure) -> float | None:
    """The figure, or None where it was not measured: what is not above 0 has no ratio."""
    value: float | None = getattr(sample, figure.field)
    return value if value is not None and value > 0 else None


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours to theirs, round by round."""
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def judge(ratios: Sequence[float], figure: Figure, threshold: float) -> Verdict:
    """What the ratios of our figure to theirs say; see the module's text."""
    interval = confidence_interval(ratios)
    if interval is None:
        return Verdict.UNKNOWN
    middle = median(ratios)
    more, less = figure.worse, figure.better
    if figure.more_is_better:
        more, less = less, more
    if interval.low > 1 and middle > 1 + threshold:
        return more
    if interval.high < 1 and middle < 1 / (1 + threshold):
        return less
    return Verdict.SAME


def quartiles(ratios: Sequence[float]) -> Range | None:
    """The middle half of the ratios; None for fewer than two."""
    if len(ratios) < 2:
        return None
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return Range(low, high)


def confidence_interval(ratios: Sequence[float]) -> Range | None:
    """What encloses the true median ratio with CONFIDENCE; None for fewer than two ratios."""
    count = len(ratios)
    if count < 2:
        return None
    if count < SIGN_TEST_ROUNDS:
        logarithms = [log(ratio) for ratio in ratios]
        middle = fmean(logarithms)
        reach = STUDENT[count] * stdev(logarithms) / sqrt(count)
        return Range(exp(middle - reach), exp(middle + reach))
    outside = _outside(count)
    ordered = sorted(ratios)
    return Range(ordered[outside], ordered[-1 - outside])


def _outside(count: int) -> int:
    """How many of `count` ratios on either side the interval leaves out."""
    # Of the 2**count ways in which coins fall, those with `outside` or fewer heads are few enough.
    few = (1 - CONFIDENCE) / 2 * 2**count
    outside = 0
    while sum(comb(count, heads) for heads in range(outside + 2)) <= few:
        outside += 1
    return outside
