"""The verdicts of `make hostile`, and its samples."""

import time

import pytest

from benchmarks.hostile.attacks import ATTACKS, Flood
from benchmarks.hostile.probes import Sample, Series
from benchmarks.hostile.verdicts import Row, Times, percentile

IDLE = Times(0.007, 0.04, 0.06)


def test_percentiles() -> None:
    values = [float(number) for number in range(1, 201)]
    assert percentile(values, 0.99) == 198
    assert percentile(values, 1.0) == 200
    assert percentile([3.0], 0.99) == 3
    assert percentile([], 0.99) == 0


def test_the_goal_is_50_ms_or_twice_idle() -> None:
    assert IDLE.limits() == Times(0.05, 0.08, 0.5)
    assert not Times(0.05, 0.08, 0.5).exceeds(IDLE.limits())
    for slow in (Times(0.06, 0.01, 0.1), Times(0.01, 0.09, 0.1), Times(0.01, 0.01, 0.6)):
        assert slow.exceeds(IDLE.limits())


@pytest.mark.parametrize(("recovery", "failed"), [(0.3, False), (None, True)])
def test_others_must_recover(recovery: float | None, failed: bool) -> None:
    row = Row("a flood", IDLE, 100, 200, 1.0, recovery)
    assert row.failed(IDLE.limits()) is failed


def test_what_has_no_answer_yet_counts() -> None:
    series = Series()
    start = time.monotonic()
    for number in range(3):
        series.begin(number)
    series.answered(1)
    series.answered(7)
    series.add(Sample(start - 10, 5.0))
    taken = series.between(start, time.monotonic())
    assert len(taken) == 3
    assert series.between(start - 20, start) == [5.0]
    assert taken == sorted(taken)


def test_floods_are_whole_packets() -> None:
    for _, attack in ATTACKS.values():
        if isinstance(attack, Flood):
            _check_packets(attack.block)


def _check_packets(block: bytes) -> None:
    position = 0
    while position < len(block):
        length = shift = 0
        position += 1
        while True:
            digit = block[position]
            position += 1
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                break
        position += length
    assert position == len(block)
