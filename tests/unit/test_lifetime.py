"""The deadlines of a connection, with the time passed in."""

import pytest

from broker.net.lifetime import Lifetime

START = 1000.0


def opened(keep_alive: int) -> Lifetime:
    lifetime = Lifetime(START, 10.0)
    lifetime.opened(keep_alive)
    return lifetime


def test_connect_must_come_in_time() -> None:
    lifetime = Lifetime(START, 10.0)
    assert lifetime.check(START) == START + 10
    lifetime.seen(START + 9)  # bytes alone are no CONNECT
    assert lifetime.check(START + 9.9) == START + 10
    assert lifetime.check(START + 10) == "no CONNECT in time"


def test_after_connect_its_deadline_is_gone() -> None:
    assert opened(0).check(START + 1e9) is None


@pytest.mark.parametrize("keep_alive", [1, 60, 65535])
def test_a_client_may_be_silent_for_one_and_a_half_keep_alives(keep_alive: int) -> None:
    """[MQTT-3.1.2-24]"""
    lifetime = opened(keep_alive)
    limit = keep_alive * 1.5
    assert lifetime.check(START + limit - 0.1) == START + limit
    assert lifetime.check(START + limit) == "keep-alive timeout"


def test_whatever_is_heard_puts_the_silence_off() -> None:
    lifetime = opened(10)
    lifetime.seen(START + 14)
    assert lifetime.check(START + 15) == START + 29
    lifetime.seen(START + 28)
    assert lifetime.check(START + 29) == START + 43
    assert lifetime.check(START + 43) == "keep-alive timeout"


def test_a_credential_ends() -> None:
    lifetime = opened(0)
    lifetime.announced()
    assert lifetime.check(START, 30.0) == START + 30
    assert lifetime.check(START + 29.5, 0.5) == START + 30
    assert lifetime.check(START + 30, 0.0) == "token expired"
    assert lifetime.check(START + 31, -1.0) == "token expired"


@pytest.mark.parametrize(("expires_in", "then"), [(5.0, 5), (15.0, 15), (100.0, 15), (None, 15)])
def test_the_first_deadline_is_next(expires_in: float | None, then: float) -> None:
    lifetime = opened(10)
    lifetime.announced()
    assert lifetime.check(START, expires_in) == START + then


def test_a_silent_client_whose_credential_ended_too_is_silent() -> None:
    assert opened(10).check(START + 15, -1.0) == "keep-alive timeout"


# --- the announcement of a credential's end --------------------------------------------------


def test_a_long_credential_is_checked_a_minute_before_its_end() -> None:
    lifetime = opened(0)
    assert not lifetime.is_ending(3600.0)
    assert lifetime.check(START, 3600.0) == START + 3540
    assert not lifetime.is_ending(60.1)
    assert lifetime.is_ending(60.0)


def test_an_end_that_was_not_announced_is_announced_again() -> None:
    """The client may subscribe to its events only now."""
    lifetime = opened(0)
    assert lifetime.check(START, 60.0) == START + 1
    assert lifetime.check(START + 1, 59.0) == START + 2
    lifetime.announced()
    assert not lifetime.is_ending(58.0)
    assert lifetime.check(START + 2, 58.0) == START + 60


def test_each_credential_is_announced_once() -> None:
    lifetime = opened(0)
    lifetime.announced()
    lifetime.renewed()
    assert lifetime.is_ending(60.0)
    assert lifetime.check(START, 600.0) == START + 540


@pytest.mark.parametrize("expires_in", [None, 0.0, -1.0])
def test_what_does_not_end_or_has_ended_is_not_announced(expires_in: float | None) -> None:
    assert not opened(0).is_ending(expires_in)
