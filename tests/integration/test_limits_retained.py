"""How many messages one user, and all users, may retain."""

from tests.integration.im import Device
from tests.integration.limits_kit import (
    OPEN,
    MakeNode,
    limited,
)
from tests.integration.node import wait_for
from tests.integration.raw import RawClient, publish

# --- retained messages -------------------------------------------------------------------


def retain(device: Device, topic: str, payload: str) -> str | None:
    """Publish with RETAIN; returns the code of a refusal."""
    before = len(device.told("error"))
    device.client.send(publish(topic, payload.encode(), 1, 60_001, retain=True))
    device.until(lambda: 60_001 in device._acknowledged, "the PUBACK")
    device._acknowledged.discard(60_001)
    errors = device.told("error")[before:]
    return str(errors[0]["code"]) if errors else None


def test_retained_messages_in_number(make_node: MakeNode) -> None:
    node = make_node("limits.retained_messages=3", OPEN).start()
    with Device(node, node.user("alice")) as alice:
        assert [retain(alice, f"open/{n}", "x") for n in range(5)] == [None, None, None, "quota", "quota"]
        assert retain(alice, "open/0", "another") is None
        assert retain(alice, "open/1", "") is None
        assert retain(alice, "open/3", "x") is None
        assert retain(alice, "open/4", "x") == "quota"
        assert limited(node, "retained_messages") == 3
        alice.publish(f"users/{alice.user}/presence", "away")
    node.stop()
    node.start()
    with Device(node, alice.user) as alice:
        assert retain(alice, "open/4", "x") == "quota"
        assert retain(alice, "open/0", "") is None
        assert retain(alice, "open/4", "x") is None


def test_retained_messages_in_bytes(make_node: MakeNode) -> None:
    node = make_node("limits.retained_bytes=1000", OPEN).start()
    will = ("open/will", b"x" * 900, 1, True)
    with Device(node, node.user("alice")) as alice, RawClient(node.port) as last:
        assert retain(alice, "open/0", "x" * 500) is None
        assert retain(alice, "open/1", "x" * 500) == "quota"
        assert retain(alice, "open/0", "x" * 400) is None
        assert retain(alice, "open/1", "x" * 500) is None
        last.login("last", alice.user, node.token(alice.user), will=will)
    wait_for(lambda: limited(node, "retained_bytes") == 2, "the will to be refused")


def test_retained_messages_of_a_user(make_node: MakeNode) -> None:
    node = make_node(
        "limits.retained_messages_per_user=2", "limits.retained_bytes_per_user=1000", OPEN
    ).start()
    with Device(node, node.user("alice")) as alice, Device(node, node.user("bob")) as bob:
        assert [retain(alice, f"open/{n}", "x") for n in range(3)] == [None, None, "quota"]
        assert retain(alice, "open/0", "x" * 1000) == "quota"
        assert [retain(bob, f"open/{n}", "x") for n in range(1, 4)] == [None, None, "quota"]
        assert retain(alice, "open/4", "x") is None, "bob has replaced one of hers"
        assert limited(node, "retained_messages_per_user") == 2
        assert limited(node, "retained_bytes_per_user") == 1
    node.kill()
    node.start()
    with Device(node, alice.user) as alice:
        assert retain(alice, "open/5", "x") == "quota", "whose they are is stored"
