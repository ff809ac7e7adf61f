"""Typing: stamped, limited in rate, stored nowhere."""

from tests.integration.im import devices, private
from tests.integration.node import Node


def test_typing(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob)
    with devices(node, alice, bob, carol, each=2) as (a1, _, b1, b2, c1, _):
        a1.publish(f"users/{bob}/typing", "")
        expected = {
            "event": "typing",
            "from_user_id": alice,
            "conversation_id": private(alice, bob),
            "typing": True,
        }
        for device in (b1, b2):
            assert device.settle().typing == [expected]
        a1.publish(f"groups/{group}/typing", {"typing": False})
        assert b1.settle().typing[-1]["conversation_id"] == f"g:{group}"
        assert b1.typing[-1]["typing"] is False
        assert c1.settle().typing == []
        c1.publish(f"groups/{group}/typing", {"typing": True})
        assert c1.error()["code"] == "not_member"
        assert len(b1.inbox) == 0
        assert all(topic.endswith("/typing") is False for topic in b1.entries)


def test_a_flood_is_thinned_out(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        for _ in range(50):
            a.publish(f"users/{bob}/typing", {"typing": True})
        assert 3 <= len(b.settle().typing) < 10
        assert not a.told("error")
        assert node.stats()["dropped.typing_rate"] >= 40
