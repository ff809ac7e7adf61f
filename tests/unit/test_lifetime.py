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
    assert lifetime.check(START, 30.0) == START + 30
    assert lifetime.check(START + 29.5, 0.5) == START + 30
    assert lifetime.check(START + 30, 0.0) == "token expired"
    assert lifetime.check(START + 31, -1.0) == "token expired"


@pytest.mark.parametrize(("expires_in", "then"), [(5.0, 5), (15.0, 15), (100.0, 15), (None, 15)])
def test_the_first_deadline_is_next(expires_in: float | None, then: float) -> None:
    assert opened(10).check(START, expires_in) == START + then


def test_a_silent_client_whose_credential_ended_too_is_silent() -> None:
    assert opened(10).check(START + 15, -1.0) == "keep-alive timeout"
