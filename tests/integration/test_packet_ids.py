"""Packet ids of QoS 2 towards a subscriber that keeps those it has received (MQTT 3.1.1, figure 4.3, second
method), over crashes of the node."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from broker.wire.encoder import pubrel
from tests.integration.keeper import Keeper
from tests.integration.node import Node, password
from tests.integration.raw import RawClient, publish

MakeNode = Callable[..., Node]
Opened = Callable[[Node, str], Keeper]

_SAVED_SECONDS = 1.5
"""Cursors are saved twice a second."""


@pytest.fixture
def opened() -> Iterator[Callable[[Node, str], Keeper]]:
    """Makes keepers."""
    made: list[Keeper] = []

    def make(node: Node, user: str) -> Keeper:
        made.append(Keeper(node, user))
        return made[-1]

    yield make
    for each in made:
        each.close()


def send(node: Node, user: str, peer: str, count: int) -> None:
    with RawClient(node.port) as client:
        client.login("writer", user, password(user))
        for n in range(1, count + 1):
            client.send(publish(f"users/{peer}/inbox", b"hello", 2, n))
            client.expect(5)
            client.send(pubrel(n))
            client.expect(7)


def test_who_keeps_packet_ids_misses_nothing_after_a_crash(make_node: MakeNode, opened: Opened) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    keeper = opened(node, alice)
    sent = 0
    for _ in range(3):
        for releases in (True, False):
            # The first ones are done with, and the cursor is saved. The node dies while the others are held.
            keeper.releases = releases
            send(node, bob, alice, 40)
            sent += 40
            keeper.read_until(partial(keeper.has, sent), f"{sent} messages")
            if releases:
                keeper.read_until(partial(keeper.has, sent, all_released=True), "PUBREL")
                time.sleep(_SAVED_SECONDS)
        node.kill()
        keeper.abandoned = set(keeper.held)
        node.start()
        keeper.connect()
    keeper.releases = True
    send(node, bob, alice, 100)
    keeper.read_until(partial(keeper.has, sent + 100), f"{sent + 100} messages")


def test_a_session_goes_on_with_its_ids_after_a_disconnect(make_node: MakeNode, opened: Opened) -> None:
    """Nothing is in doubt then, and no packet id is held back."""
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    keeper = opened(node, alice)
    for round_ in range(1, 4):
        send(node, bob, alice, 5)
        keeper.read_until(partial(keeper.has, 5 * round_, all_released=True), "5 messages")
        assert max(keeper.used) == 5 * round_
        keeper.connect()
