"""Token buckets, by key and by user."""

import pytest

from broker.domain.rates import Allowances, Buckets, network_of

NOW = 1_795_000_000.0


@pytest.mark.parametrize("burst", [1, 2, 7, 10, 60, 1000])
def test_a_bucket_holds_its_burst_and_refills_in_a_minute(burst: int) -> None:
    buckets = Buckets(burst)
    for _ in range(burst):
        assert buckets.wait("a", NOW) == 0
        buckets.take("a", NOW)
    wait = buckets.wait("a", NOW)
    assert wait == pytest.approx(60 / burst, abs=0.01)
    assert buckets.wait("b", NOW) == 0
    assert buckets.wait("a", NOW + wait) == 0
    buckets.take("a", NOW + wait)
    assert buckets.wait("a", NOW + wait) > 0
    buckets.give_back("a")
    assert buckets.wait("a", NOW + wait) == 0


def test_buckets_that_are_full_again_are_forgotten_first() -> None:
    buckets = Buckets(10, most=10)
    for i in range(10):
        buckets.take(f"old{i}", NOW)
    buckets.take("new", NOW + 61)
    assert len(buckets) == 1


def test_a_bucket_of_an_hour() -> None:
    buckets = Buckets(2, seconds=3600.0)
    buckets.take("a", NOW)
    buckets.take("a", NOW)
    assert buckets.wait("a", NOW) == pytest.approx(1800, abs=0.01)
    assert buckets.wait("a", NOW + 1800) == 0


def spend(allowances: Allowances, user: str, now: float) -> int:
    """How much a new connection may do until it must pause."""
    allowance = allowances.hold(user, now)
    for count in range(1_000_000):
        allowance.take(1)
        if allowance.left < 0 and allowance.wait(now):
            return count
    raise AssertionError("it never has to pause")


def test_an_allowance_is_that_of_two_seconds_and_comes_back_with_time() -> None:
    allowances = Allowances(100)
    allowance = allowances.hold("alice", 0.0)
    done, now = 0, 0.0
    while now < 10:
        allowance.take(1)
        done += 1
        if allowance.left < 0:
            now += allowance.wait(now)
    assert 1180 <= done <= 1220  # two seconds' worth, and that of ten seconds


def test_a_pause_is_worth_it() -> None:
    allowances = Allowances(10_000)
    allowance = allowances.hold("alice", 0.0)
    pauses, now = 0, 0.0
    while now < 10:
        allowance.take(1)
        if allowance.left < 0 and (wait := allowance.wait(now)):
            pauses += 1
            now += wait
    assert pauses <= 201  # 20 a second, and not 10,000


def test_connections_of_a_user_share_and_a_new_one_is_no_new_allowance() -> None:
    allowances = Allowances(10)
    assert spend(allowances, "alice", NOW) == 20
    assert spend(allowances, "alice", NOW) == 0
    assert spend(allowances, "bob", NOW) == 20
    allowance = allowances.hold("alice", NOW)
    for _ in range(3):
        allowances.release(allowance)
    for number in range(5000):  # who has published nothing of late is not remembered
        allowances.release(allowances.hold(f"u{number}", NOW))
    assert len(allowances) < 3500
    assert spend(allowances, "alice", NOW) == 0
    assert 19 <= spend(allowances, "alice", NOW + 10) <= 21


def test_anonymous_clients_share_nothing() -> None:
    allowances = Allowances(10)
    assert [spend(allowances, "", NOW) for _ in range(3)] == [20] * 3
    assert len(allowances) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_what_counts_as_one_address(address: str, network: str) -> None:
    assert network_of(address) == network


def test_a_debt_is_bounded() -> None:
    allowance = Allowances(100).hold("alice", 0.0)
    assert not allowance.take(1_000_000)
    assert 10 <= allowance.wait(0.0) <= 10.1
    assert allowance.wait(10.0) == 0.0


def test_another_rate_holds_for_those_who_are_there() -> None:
    allowances = Allowances(100)
    allowance = allowances.hold("alice", 0.0)
    allowances.allow(10, 0.0)
    assert allowance.take(20)
    assert not allowance.take(10)
    assert 1 <= allowance.wait(0.0) <= 1.1
    assert allowances.hold("bob", 0.0).left == 20


def test_buckets_of_another_size_keep_what_was_taken() -> None:
    buckets = Buckets(10, seconds=100.0)
    for _ in range(4):
        buckets.take("a", 0.0)
    buckets.resize(5, 0.0)
    assert buckets.wait("a", 0.0) == 0.0
    buckets.take("a", 0.0)
    assert buckets.wait("a", 0.0) == pytest.approx(20.0)
    buckets.resize(2, 0.0)  # more was taken than there are: it is empty, not in debt
    assert buckets.wait("a", 0.0) == pytest.approx(50.0)
    buckets.resize(10, 0.0)
    assert buckets.wait("b", 0.0) == 0.0
