"""What is concluded from paired ratios: samples made by hand."""

import io
import json
import random
from itertools import product
from math import comb
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.comparison import (
    MEMORY,
    SPEED,
    Comparison,
    Range,
    Verdict,
    compare,
    confidence_interval,
    judge,
    quartiles,
)
from benchmarks.report import comparison_document, print_comparison, write_json
from benchmarks.rounds import Outcome
from benchmarks.workloads import Sample

CPU, RATE = SPEED
IDLE, CONNECTION = MEMORY
TEN = [1.00, 1.09, 1.01, 1.08, 1.02, 1.07, 1.03, 1.06, 1.04, 1.05]


def outcome(broker: str, *cpu: float, workload: str = "connect", error: str | None = None) -> Outcome:
    samples = [Sample(rate=1e6 / value, cpu_us=value, generator_share=0.5) for value in cpu]
    return Outcome(workload, broker, samples, error)


def test_ten_rounds_leave_out_one_ratio_on_either_side() -> None:
    assert confidence_interval(TEN) == Range(1.01, 1.08)


def test_six_rounds_leave_out_none() -> None:
    assert confidence_interval(TEN[:6]) == Range(1.00, 1.09)


@pytest.mark.parametrize("count", [*range(6, 31), 100])
def test_the_interval_is_the_narrowest_with_95_per_cent(count: int) -> None:
    interval = confidence_interval([float(number + 1) for number in range(count)])
    assert interval is not None
    outside = int(interval.low) - 1
    assert interval.high == count - outside

    def missed(left_out: int) -> float:
        return 2 * sum(comb(count, heads) for heads in range(left_out + 1)) / 2**count

    assert missed(outside) <= 0.05 < missed(outside + 1)


def test_few_rounds_have_students_interval() -> None:
    # Logarithms -0.1, 0, 0.1: mean 0, deviation 0.1; 4.303 * 0.1 / sqrt(3) = 0.2484.
    interval = confidence_interval([0.904837, 1.0, 1.105171])
    assert interval is not None
    assert interval.low == pytest.approx(0.7800, abs=1e-3)
    assert interval.high == pytest.approx(1.2820, abs=1e-3)


@pytest.mark.parametrize("ratios", [[], [2.0]])
def test_one_round_has_no_spread(ratios: list[float]) -> None:
    assert confidence_interval(ratios) is None
    assert quartiles(ratios) is None
    assert judge(ratios, CPU, 0.01) is Verdict.UNKNOWN


def test_quartiles() -> None:
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == Range(2.0, 4.0)


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        (TEN, Verdict.SLOWER),
        ([1 / ratio for ratio in TEN], Verdict.FASTER),
        ([1.0] * 10, Verdict.SAME),
        # Two of ten on the other side are not enough for a verdict, one is.
        ([0.97, 0.99] + [1.05] * 8, Verdict.SAME),
        ([0.50] + [1.05] * 9, Verdict.SLOWER),
        # A wild round or two decide nothing, whichever way they go.
        ([9.0, 9.0] + [0.99, 1.01] * 4, Verdict.SAME),
        # Quartiles above 1, a median above the threshold, and yet what equal trees often show.
        ([0.96, 0.97, 0.995, 1.02, 1.02, 1.02, 1.03, 1.03, 1.04, 1.05], Verdict.SAME),
        # Certain, but within the threshold.
        ([1.005, 1.006] * 5, Verdict.SAME),
        ([0.995, 0.994] * 5, Verdict.SAME),
        # A few rounds: only what is plain.
        ([1.03, 1.01, 1.05], Verdict.SAME),
        ([2.0, 2.1, 1.9], Verdict.SLOWER),
        ([0.50, 0.51], Verdict.FASTER),
        ([1.5, 2.0], Verdict.SAME),
    ],
)
def test_verdicts_on_what_should_be_little(ratios: list[float], verdict: Verdict) -> None:
    assert judge(ratios, CPU, 0.01) is verdict


def test_the_threshold_is_a_choice() -> None:
    assert judge([1.005, 1.006] * 5, CPU, 0.0) is Verdict.SLOWER
    assert judge(TEN, CPU, 0.10) is Verdict.SAME


def test_a_rate_is_better_when_there_is_more_of_it() -> None:
    assert judge(TEN, RATE, 0.01) is Verdict.FASTER
    assert judge([1 / ratio for ratio in TEN], RATE, 0.01) is Verdict.SLOWER


def test_memory_is_larger_or_smaller() -> None:
    assert judge(TEN, IDLE, 0.01) is Verdict.LARGER
    assert judge([1 / ratio for ratio in TEN], CONNECTION, 0.01) is Verdict.SMALLER


def test_equal_trees_are_seldom_called_different() -> None:
    """Noise of 5 %, twice as much in every tenth round: at most one verdict in twenty is wrong."""
    dice = random.Random(6)
    for rounds in (3, 6, 10):
        verdicts = [
            judge([dice.lognormvariate(0, dice.choice([0.05] * 9 + [0.1])) for _ in range(rounds)], CPU, 0)
            for _ in range(2000)
        ]
        wrong = sum(verdict is not Verdict.SAME for verdict in verdicts)
        assert wrong <= 0.05 * len(verdicts) * 1.2


def test_pairs_are_of_the_same_round() -> None:
    """A machine that gets three times slower on its way makes no difference."""
    drift = [1, 1.2, 1.5, 1.8, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0]
    ours = outcome("parley", *(10.5 * factor for factor in drift))
    theirs = outcome("parley@abc", *(10 * factor for factor in drift))
    cpu, rate = compare([ours, theirs], 10, 0.01)
    assert (cpu.workload, cpu.broker, cpu.figure) == ("connect", "parley", CPU)
    assert cpu.ratios == pytest.approx([1.05] * 10)
    assert cpu.verdict is Verdict.SLOWER
    assert rate.ratios == pytest.approx([1 / 1.05] * 10)
    assert rate.verdict is Verdict.SLOWER
    assert (cpu.error, cpu.failed) == (None, True)


def test_nothing_slower_has_not_failed() -> None:
    for values in ([10.0] * 10, [9.0] * 10):
        comparisons = compare([outcome("parley", *values), outcome("parley@abc", *[10.0] * 10)], 10, 0.01)
        assert [each.failed for each in comparisons] == [False, False]


def test_rounds_that_are_missing_are_an_error() -> None:
    ours, theirs = outcome("parley", *[10] * 7), outcome("parley@abc", *[10] * 8)
    cpu, _ = compare([ours, theirs], 10, 0.01)
    assert len(cpu.ratios) == 7
    assert cpu.verdict is Verdict.SAME
    assert cpu.error == "measured in 7 of 10 rounds only"
    assert cpu.failed


def test_an_error_names_the_tree() -> None:
    ours, theirs = outcome("parley", 10, 10), outcome("parley@abc", error="timeout after 20 s")
    cpu, rate = compare([ours, theirs], 2, 0.01)
    for each in (cpu, rate):
        assert each.verdict is Verdict.UNKNOWN
        assert each.error == "parley@abc: timeout after 20 s"
        assert each.failed


def test_what_is_not_above_zero_has_no_ratio() -> None:
    def idle(broker: str, *connection_kb: float) -> Outcome:
        return Outcome("idle", broker, [Sample(idle_mb=90, connection_kb=each) for each in connection_kb])

    memory, connection = compare([idle("parley", 5, 5), idle("parley@abc", 0, 5)], 2, 0.01)
    assert (memory.figure, memory.error, len(memory.ratios)) == (IDLE, None, 2)
    assert (connection.figure, connection.ratios) == (CONNECTION, [1.0])
    assert connection.error == "measured in 1 of 2 rounds only"


def test_one_round_is_not_enough() -> None:
    cpu, _ = compare([outcome("parley", 10), outcome("parley@abc", 10)], 1, 0.01)
    assert (cpu.verdict, cpu.failed) == (Verdict.UNKNOWN, True)
    assert cpu.error == "one round has no spread, so there is no verdict"


def test_a_rate_that_the_generator_set_is_marked() -> None:
    busy = [Sample(rate=1e5, cpu_us=5, generator_share=0.97)] * 2
    cpu, rate = compare([Outcome("connect", "parley", busy), Outcome("connect", "parley@abc", busy)], 2, 0.01)
    assert (cpu.limited, rate.limited) == (False, True)
    assert "connects, per second: the load generator was at its limit" in report([cpu, rate])


def report(comparisons: list[Comparison]) -> str:
    text = io.StringIO()
    print_comparison(Console(file=text, width=80), comparisons, "abc", 0.01)
    return text.getvalue()


def test_the_report_has_a_line_for_each_figure() -> None:
    brokers = ("parley", "parley-durable")
    outcomes = [
        outcome(f"{broker}{tree}", *values, workload="pairs-qos1")
        for broker, (tree, values) in product(brokers, [("", [10.5, 10.6] * 5), ("@abc", [10, 10] * 5)])
    ]
    lines = report(compare(outcomes, 10, 0.01)).splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    cpu = ["CPU µs", "10.6", "10.0", "1.055", "1.055", "1.050–1.060", "1.050–1.060", "slower"]
    rate = ["per second", "94,789", "100,000", "0.948", "0.948", "0.943–0.952", "0.943–0.952", "slower"]
    assert cells == [
        ["20 pairs, QoS 1", *cpu],
        ["", *rate],
        ["20 pairs, QoS 1, durable", *cpu],
        ["", *rate],
    ]


def test_the_report_of_what_was_not_measured() -> None:
    ours, theirs = outcome("parley", error="timeout: 7 deliveries missing"), outcome("parley@abc", 10)
    text = report(compare([ours, theirs], 1, 0.01))
    assert "unknown" in text
    assert "connects, CPU µs: parley: timeout: 7 deliveries missing\n" in text


def test_json_has_all_samples(tmp_path: Path) -> None:
    outcomes = [outcome("parley", *[11] * 6), outcome("parley@abc", *[10] * 6)]
    comparisons = [comparison_document(each) for each in compare(outcomes, 6, 0.01)]
    write_json(tmp_path / "file", outcomes, {"parley": "working tree"}, comparisons=comparisons)
    document = json.loads((tmp_path / "file").read_text())
    assert [len(each["samples"]) for each in document["results"]] == [6, 6]
    cpu = document["comparisons"][0]
    assert cpu["working_tree"] == [11] * 6
    assert cpu["other"] == [10] * 6
    assert cpu["median_ratio"] == pytest.approx(1.1)
    assert cpu["interval"] == {"low": 1.1, "high": 1.1}
    assert cpu["verdict"] == "slower"
