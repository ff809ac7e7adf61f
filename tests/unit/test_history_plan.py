"""A seed, and nothing else, says which faults happen."""

from collections import Counter

from tests.history.plan import BETWEEN, SECONDS, Kind, plan


def test_a_seed_gives_the_same_faults_again() -> None:
    assert plan(7, list(Kind), 20, 3) == plan(7, list(Kind), 20, 3)


def test_another_seed_gives_other_faults() -> None:
    assert len({tuple(plan(seed, list(Kind), 3, 3)) for seed in range(50)}) == 50


def test_each_kind_has_its_turn() -> None:
    counts = Counter(fault.kind for fault in plan(3, list(Kind), 3 * len(Kind), 3))
    assert counts == dict.fromkeys(Kind, 3)


def test_faults_are_within_their_bounds() -> None:
    for fault in plan(5, list(Kind), 200, 3):
        low, high = SECONDS[fault.kind]
        assert low <= fault.seconds <= high
        assert BETWEEN[0] <= fault.after <= BETWEEN[1]
        assert fault.node in range(3)


def test_no_fault_lasts_longer_than_it_may() -> None:
    assert max(fault.seconds for fault in plan(5, list(Kind), 50, 3, most_seconds=2.0)) == 2.0
