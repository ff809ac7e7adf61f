"""A token that is about to end is announced, and a connection goes on with a fresh one."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.integration.im import Device, devices
from tests.integration.node import Node


class Bearer(Device):
    """A device that logs in with a token of `ttl` seconds."""

    ttl = 3600

    def credential(self) -> str:
        self.token = self.node.token(self.user, self.ttl)
        return self.token


class Brief(Bearer):
    """A device whose token ends soon."""

    ttl = 5


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def log_out(node: Node, token: str) -> None:
    """Revoke one token."""
    answer = httpx.post(f"{node.http}/api/logout", headers={"authorization": f"Bearer {token}"}, json={})
    assert answer.is_success, answer.text


def wait(device: Device, seconds: float) -> None:
    """Go on reading for a while: the connection must last."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        device.settle()
        time.sleep(0.1)


def test_a_token_about_to_end_is_announced_and_renewed(node: Node, opened: ExitStack) -> None:
    """Each device renews its own connection, and one that does not ends."""
    alice = node.user("alice")
    brief = opened.enter_context(Brief(node, alice, "brief"))
    ends = time.time() + 5
    left = opened.enter_context(Brief(node, alice, "left"))
    other = opened.enter_context(Bearer(node, alice, "other"))
    brief.until(lambda: brief.told("token_expiring"), "the event")
    (event,) = brief.told("token_expiring")
    assert set(event) == {"event", "at"}
    assert abs(event["at"] / 1000 - ends) < 2
    assert not other.told("token_expiring"), "the other device has another token"
    renewed = brief.rpc("session.renew", token=node.token(alice, 3600))
    assert renewed["expires_at"] / 1000 > time.time() + 3500
    left.until(lambda: left.told("token_expiring"), "the event of the device that does not renew")
    with pytest.raises(AssertionError, match="disconnected"):
        wait(left, 9)
    # The token of `left` was the later one, so that `brief` has outlived its own by now.
    assert time.time() > event["at"] / 1000
    brief.settle()
    assert len(brief.told("token_expiring")) == 1
    # A fresh token may also end sooner than the one before.
    brief.rpc("session.renew", token=node.token(alice, 3))
    brief.until(lambda: len(brief.told("token_expiring")) == 2, "the event about the second token")
    with pytest.raises(AssertionError, match="disconnected"):
        wait(brief, 6)
    other.settle()


def test_a_long_token_is_not_announced_yet(node: Node, opened: ExitStack) -> None:
    """A short one that came later is."""
    alice = node.user("alice")
    long = opened.enter_context(Bearer(node, alice, "long"))
    brief = opened.enter_context(Brief(node, alice, "brief"))
    brief.until(lambda: brief.told("token_expiring"), "the event")
    assert not long.settle().told("token_expiring")


def test_only_a_valid_access_token_of_the_same_user_renews(node: Node, opened: ExitStack) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    device = opened.enter_context(Brief(node, alice, "phone"))
    revoked = node.token(alice)
    log_out(node, revoked)
    for token in ("", "x", "secret-of-" + alice, node.token(bob), revoked, node.token(alice)[:-4]):
        assert device.refused("session.renew", token=token) == "unauthenticated"
    assert device.refused("session.renew") == "invalid_params"
    with pytest.raises(AssertionError, match="disconnected"):
        wait(device, 9)  # none of it has put the end off


def test_a_connection_by_password_has_nothing_to_renew(node: Node) -> None:
    alice = node.user("alice")
    with devices(node, alice, each=1) as (device,):
        assert device.refused("session.renew", token=node.token(alice, 2)) == "not_found"
        wait(device, 3.5)


def test_a_renewed_connection_depends_on_the_new_token(node: Node, opened: ExitStack) -> None:
    alice = node.user("alice")
    device = opened.enter_context(Bearer(node, alice, "phone"))
    first, second = device.token, node.token(alice)
    device.rpc("session.renew", token=second)
    log_out(node, first)
    wait(device, 0.5)
    log_out(node, second)
    with pytest.raises(AssertionError, match="disconnected"):
        wait(device, 2)
