"""Token buckets."""

import pytest

from broker.domain.rates import Buckets, network_of

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
