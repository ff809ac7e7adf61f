"""Compares two trees: paired ratios, their spread, and a verdict.

Each round measures both trees one right after the other. So the ratio within a round is nearly free of the
machine's changes over minutes. Only these paired ratios are judged. The ratio of the two medians is
reported beside them and decides nothing.

The test is the sign test in the form of an exact confidence interval of the median. If the trees were
equal, the ratios of n rounds would fall above or below 1 like n coins. The d-th smallest and the d-th
largest ratio enclose the true median in at least 95 % of all runs, for the largest d that the binomial
distribution allows. For ten rounds d is 2: one disturbed round on either side does no harm. The test assumes
that the rounds are independent. It assumes nothing about the distribution of their noise. The quartiles are
reported as the spread and decide nothing: with ten rounds of two equal trees they lie on one side of 1 in
one run of seven, the interval in one of fifty.

Fewer than six coins cannot be conclusive. For two to five rounds the interval is Student's, of the
logarithms of the ratios. It is exact if these are normally distributed, and wide. One round has no spread
and yields no verdict.

A tree is worse when the whole interval lies on the worse side of 1 and the median ratio is worse by more
than a threshold. The threshold leaves out differences that are certain but too small to matter. `same`
means that no difference was found beyond the spread; the width of the interval shows how small a difference
would have been found. Each figure is tested by itself. With ten rounds of two equal trees a figure is called
worse in one run of a hundred, so one of the sixteen figures of a full run in one run of six or more.
Therefore measure a single figure that is barely worse again, by itself.
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
    """The verdict on a figure of the working tree, compared with the other tree's."""

    SLOWER = "slower"
    FASTER = "faster"
    LARGER = "larger"
    SMALLER = "smaller"
    SAME = "same"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Figure:
    """A field of Sample to compare, its heading, and its possible verdicts."""

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
    Figure("idle_mb", "idle node, MiB", Verdict.LARGER, Verdict.SMALLER),
    Figure("connection_kb", "KiB per client", Verdict.LARGER, Verdict.SMALLER),
)


@dataclass(frozen=True, slots=True)
class Range:
    """From `low` to `high`, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one workload on both trees.

    `ours` (the working tree's) and `theirs` hold the values of the same rounds, in order, all above 0.
    `error` says why there are none or too few. `limited`: the load generator, not the broker, limited
    the rate.
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
        """Ours divided by theirs, round by round."""
        return paired_ratios(self.ours, self.theirs)

    @property
    def failed(self) -> bool:
        """Whether the working tree is worse, or could not be measured in every round."""
        return self.error is not None or self.verdict is self.figure.worse


def compare(outcomes: Sequence[Outcome], rounds: int, threshold: float) -> list[Comparison]:
    """Compare outcomes, which come in pairs of one workload: the working tree's, then the other tree's.

    `rounds` is the number of samples that each should have. `threshold` is the relative difference (0.01
    for one per cent) up to which a figure counts as the same.
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
    """The value of a figure, or None if it was not measured. A value of 0 or less has no ratio."""
    value: float | None = getattr(sample, figure.field)
    return value if value is not None and value > 0 else None


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours divided by theirs, round by round."""
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def judge(ratios: Sequence[float], figure: Figure, threshold: float) -> Verdict:
    """The verdict that the ratios of our figure to theirs yield: see the text of the module."""
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
    """The range of the middle half of the ratios; None for fewer than two."""
    if len(ratios) < 2:
        return None
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return Range(low, high)


def confidence_interval(ratios: Sequence[float]) -> Range | None:
    """The interval that holds the true median ratio with CONFIDENCE; None for fewer than two ratios."""
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
    """The number of ratios, of `count`, that the interval leaves out on either side."""
    # Of the 2**count ways in which `count` coins can fall, at most `few` have `outside` or fewer heads.
    few = (1 - CONFIDENCE) / 2 * 2**count
    outside = 0
    while sum(comb(count, heads) for heads in range(outside + 2)) <= few:
        outside += 1
    return outside
