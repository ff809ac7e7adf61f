"""Plugins for a node's configuration, and raw clients of such a node."""

from collections.abc import Callable

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration import raw
from tests.integration.node import Node, password
from tests.integration.raw import RawClient

CONNACK, PUBACK, SUBACK, UNSUBACK, PINGRESP = 2, 4, 9, 11, 13
NOT_AUTHORIZED, FAILURE = 5, 0x80

USERS = {"plugins.auth.UserAuthPlugin": {}}
RULES = {"plugins.auth.TopicRulesPlugin": {}}
PLATFORM = USERS | RULES
STORE = {"plugins.persistence.sqlite.SqlitePersistencePlugin": {}}
OPEN = {"open": ["open/#"]}
Start = Callable[..., Node]


def add_user(node: Node, name: str, role: str = "user") -> None:
    node.call("AddUser", pb.AddUserRequest(user_id=name, password=password(name), role=role))


def connack(node: Node, user: str | None, secret: str | None) -> int:
    """The answer to a login."""
    with RawClient(node.port) as client:
        client.send(raw.connect("", user, secret))
        return client.expect(CONNACK).body[1]


def login(node: Node, user: str, secret: str | None = None, *, clean: bool = True) -> RawClient:
    client = RawClient(node.port)
    client.login(f"device-of-{user}", user, secret or password(user), clean=clean)
    return client


def subscribe(client: RawClient, *filters: str) -> list[int]:
    client.send(raw.subscribe(1, *((topic_filter, 1) for topic_filter in filters)))
    return list(client.expect(SUBACK).body[2:])


def publish(client: RawClient, topic: str, payload: bytes, *, retain: bool = False) -> None:
    """Publish with QoS 1; returns when it is acknowledged."""
    client.send(raw.publish(topic, payload, 1, 1, retain))
    client.expect(PUBACK)


def expect_silence(client: RawClient) -> None:
    client.send(raw.packet(0xC0))
    client.expect(PINGRESP)
