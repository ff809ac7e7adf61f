"""How often somebody may try to log in."""

import pytest

from broker.domain.attempts import Attempts, TooManyAttemptsError

NOW = 1_795_000_000.0


def refused_for(attempts: Attempts, user: str, address: str, now: float = NOW) -> float:
    """Seconds for which an attempt is refused; one that is not refused fails."""
    try:
        attempts.begin(user, address, now)
    except TooManyAttemptsError as error:
        return error.seconds
    return 0.0


def test_attempts_that_are_refused_cost_nothing() -> None:
    attempts = Attempts(2, 100)
    assert [refused_for(attempts, "alice", "10.0.0.1") for _ in range(2)] == [0, 0]
    waits = [refused_for(attempts, "alice", "10.0.0.1") for _ in range(50)]
    assert waits == pytest.approx([30.0] * 50, abs=0.01)
    assert refused_for(attempts, "alice", "10.0.0.1", NOW + 30.01) == 0


def test_who_logs_in_is_not_counted() -> None:
    attempts = Attempts(2, 3)
    for _ in range(50):
        attempts.begin("alice", "10.0.0.1", NOW).succeeded()
    for _ in range(50):
        attempts.begin("bob", "10.0.0.1", NOW).give_back()
    assert [refused_for(attempts, "bob", "10.0.0.1") for _ in range(2)] == [0, 0]


def test_one_address_that_tries_many_users() -> None:
    attempts = Attempts(10, 3)
    assert [refused_for(attempts, f"u{i}", "10.0.0.1") for i in range(3)] == [0, 0, 0]
    assert refused_for(attempts, "u9", "10.0.0.1") > 0
    assert refused_for(attempts, "u9", "10.0.0.2") == 0
    with pytest.raises(TooManyAttemptsError):
        attempts.count("10.0.0.1", NOW)
    attempts.count("10.0.0.2", NOW)


def test_strangers_cannot_lock_a_user_out_of_where_they_have_been() -> None:
    attempts = Attempts(5, 1000)
    attempts.begin("alice", "10.0.0.1", NOW).succeeded()
    for i in range(100):
        refused_for(attempts, "alice", f"192.0.2.{i}")
    assert refused_for(attempts, "alice", "192.0.2.200") > 0  # many machines, one user
    assert refused_for(attempts, "alice", "10.0.0.1") == 0  # at home
    # Who sits at home with alice may not try for ever, either.
    assert [refused_for(attempts, "alice", "10.0.0.1") for _ in range(4)] == [0, 0, 0, 0]
    assert refused_for(attempts, "alice", "10.0.0.1") > 0


def test_an_address_that_is_used_up_does_not_stop_who_has_logged_in_from_there() -> None:
    attempts = Attempts(5, 3)
    attempts.begin("alice", "10.0.0.1", NOW).succeeded()
    for i in range(50):
        refused_for(attempts, f"u{i}", "10.0.0.1")
    assert refused_for(attempts, "bob", "10.0.0.1") > 0
    assert [refused_for(attempts, "alice", "10.0.0.1") for _ in range(5)] == [0] * 5
    assert refused_for(attempts, "alice", "10.0.0.1") > 0


def test_a_check_counts_nothing() -> None:
    attempts = Attempts(1, 100)
    for _ in range(10):
        attempts.check("alice", "10.0.0.1", NOW)
    attempts.begin("alice", "10.0.0.1", NOW)
    with pytest.raises(TooManyAttemptsError):
        attempts.check("alice", "10.0.0.1", NOW)


def test_the_address_of_a_trusted_proxy_has_no_limit() -> None:
    attempts = Attempts(2, 3, ["192.0.2.0/24", "2001:db8::1"])
    for proxy in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"):
        assert [refused_for(attempts, f"{proxy}-{i}", proxy) for i in range(50)] == [0] * 50
        attempts.begin("alice", proxy, NOW).succeeded()
        for _ in range(100):
            attempts.count(proxy, NOW)
    # Users behind it have theirs, and no other for having been there before.
    assert [refused_for(attempts, "alice", "192.0.2.7") for _ in range(2)] == [0, 0]
    assert refused_for(attempts, "alice", "192.0.2.8") > 0
    assert refused_for(attempts, "alice", "198.51.100.1") > 0


def test_who_waits_in_one_line() -> None:
    attempts = Attempts(2, 3, ["192.0.2.0/24"])
    lines = {attempts.line(user, "198.51.100.1") for user in ("alice", "bob")}
    assert lines == {"198.51.100.1"}
    assert attempts.line("alice", "192.0.2.7") == attempts.line("alice", "192.0.2.8")
    assert attempts.line("alice", "192.0.2.7") != attempts.line("bob", "192.0.2.7")


def test_memory_is_bounded_and_a_flood_does_not_free_who_is_blocked() -> None:
    attempts = Attempts(5, 100_000, most=100)
    for _ in range(5):
        assert refused_for(attempts, "alice", "10.0.0.1") == 0
    for i in range(10_000):  # each from an address of its own
        assert refused_for(attempts, f"u{i}", f"10.{i >> 8}.{i & 255}.9") == 0
        attempts.begin(f"k{i}", "10.0.0.9", NOW).succeeded()
        assert refused_for(attempts, "alice", "10.0.0.2") > 0
    assert len(attempts._users) <= 100
    assert len(attempts._addresses) <= 100
    assert len(attempts._known) <= 100
