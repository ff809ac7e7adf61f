"""Clients that come and go, and how often a limit has had an effect."""

from collections.abc import Callable
from contextlib import ExitStack

from tests.integration.node import Node
from tests.integration.raw import RawClient, connect, packet

MakeNode = Callable[..., Node]

OPEN = 'topics.open=["open/#"]'
ACCEPTED, BUSY = 0, 3
CONNACK, PUBLISH, PUBACK = 2, 3, 4


def limited(node: Node, key: str) -> int:
    """How often a limit has had an effect."""
    return node.stats().get(f"limited.{key}", 0)


def knock(node: Node, user: str, name: str, *, clean: bool = True) -> tuple[RawClient, int]:
    """A connection of a user, and the code of its CONNACK."""
    client = RawClient(node.port)
    client.send(connect(name, user, node.token(user), clean=clean))
    return client, client.expect(CONNACK).body[1]


class Crowd(ExitStack):
    """Connections that end together."""

    def come(self, node: Node, user: str, name: str, *, clean: bool = True) -> int:
        """Connect, and stay. Returns the code of the CONNACK."""
        client, code = knock(node, user, name, clean=clean)
        self.enter_context(client)
        return code


def visit(node: Node, user: str, name: str, *, clean: bool = False) -> int:
    """Connect, and go. Returns the code of the CONNACK."""
    client, code = knock(node, user, name, clean=clean)
    with client:
        if code == ACCEPTED:
            client.send(packet(0xE0))
            assert client.is_closed()
    return code
