"""Groups that change under a subscription, and presence over several devices."""

import json
from collections.abc import Callable
from typing import Any

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, packet, publish, subscribe


def device(node: Node, user: str, *filters: str, name: str = "d", **options: object) -> RawClient:
    client = RawClient(node.port)
    client.login(name, user, password(user), **options)  # type: ignore[arg-type]
    if filters:
        client.send(subscribe(1, *((topic_filter, 1) for topic_filter in filters)))
        assert 0x80 not in client.expect(9).body[2:]
    return client


def say(client: RawClient, topic: str, text: str, packet_id: int = 1) -> None:
    client.send(publish(topic, text.encode(), 1, packet_id))
    client.expect(4)


def entry(client: RawClient) -> dict[str, Any]:
    return dict(json.loads(client.message()[1]))


def said(client: RawClient) -> dict[str, Any]:
    """The next entry that is not the group's own history."""
    while (found := entry(client)).get("type") == "system":
        pass
    return found


def error(client: RawClient) -> dict[str, Any]:
    """The next error event."""
    while (found := entry(client))["event"] != "error":
        pass
    return found


def messages(node: Node, conversation: str) -> list[object]:
    """The content of the users' messages."""
    return [entry["content"] for entry in node.history(conversation) if entry["type"] != "system"]


def add(node: Node, group: str, user: str) -> None:
    node.call("AddGroupMembers", pb.GroupMembersRequest(group_id=group, user_ids=[user]))


def remove(node: Node, group: str, user: str) -> None:
    node.call("RemoveGroupMembers", pb.GroupMembersRequest(group_id=group, user_ids=[user]))


def is_quiet(client: RawClient) -> bool:
    client.send(packet(0xC0))
    received = client.receive()
    return received is not None and received.type == 13


def test_subscription_follows_membership_while_connected(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice)
    topic = f"groups/{group}"
    with device(node, bob, "groups/+") as reader, device(node, alice) as writer:
        say(writer, topic, "before")
        add(node, group, bob)
        say(writer, topic, "while a member")
        assert said(reader)["content"] == "while a member"
        remove(node, group, bob)
        say(writer, topic, "after")
        assert is_quiet(reader)
        add(node, group, bob)
        say(writer, topic, "again")
        assert said(reader)["content"] == "again"


def test_subscription_follows_membership_while_away(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    kept, lost, joined = node.group(alice, bob), node.group(alice, bob), node.group(alice)
    device(node, bob, "groups/+", clean=False).socket.close()
    with device(node, alice) as writer:
        say(writer, f"groups/{joined}", "before bob was there")
        add(node, joined, bob)
        remove(node, lost, bob)
        for group in (kept, lost, joined):
            say(writer, f"groups/{group}", f"to {group}")
        with device(node, bob, clean=False) as reader:
            got = {(e["group_id"], e["content"]) for e in (said(reader), said(reader))}
            assert got == {(kept, f"to {kept}"), (joined, f"to {joined}")}
            assert is_quiet(reader)


def test_exact_subscription_ends_and_returns_with_membership(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with device(node, bob, f"groups/{group}") as reader, device(node, alice) as writer:
        remove(node, group, bob)
        say(writer, f"groups/{group}", "unseen")
        add(node, group, bob)
        say(writer, f"groups/{group}", "seen")
        assert said(reader)["content"] == "seen"


def test_right_to_publish_is_lost_at_once(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with device(node, bob, f"users/{bob}/events") as client:
        say(client, f"groups/{group}", "allowed")
        remove(node, group, bob)
        client.send(publish(f"groups/{group}", b"refused", 1, 2))
        assert error(client)["code"] == "not_member"
        client.expect(4)
    assert messages(node, f"g:{group}") == ["allowed"]


def test_dismissed_group(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with device(node, bob, "groups/+") as reader, device(node, alice, f"users/{alice}/events") as writer:
        say(writer, f"groups/{group}", "hello")
        assert said(reader)["content"] == "hello"
        node.call("DismissGroup", pb.DismissGroupRequest(group_id=group))
        writer.send(publish(f"groups/{group}", b"x", 1, 2))
        assert error(writer)["code"] == "dismissed"
        writer.expect(4)
        assert entry(reader)["content"]["event"] == "group_dismissed"
        node.group(bob, name=group)  # the name is free again, the old messages stay closed
        assert entry(reader)["content"]["event"] == "group_created"
        assert is_quiet(reader)


def test_every_device_sees_the_same(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with (
        device(node, alice, f"users/{alice}/inbox", name="phone") as phone,
        device(node, alice, f"users/{alice}/inbox", name="laptop") as laptop,
        device(node, bob, f"users/{bob}/inbox") as other,
    ):
        phone.send(publish(f"users/{bob}/inbox", b"from the phone", 1, 1))
        mine, acknowledged = {}, False
        while not (mine and acknowledged):
            received = phone.receive()
            assert received is not None
            if received.type == 4:
                acknowledged = True
            else:
                mine = json.loads(received.body[received.body.index(b"{") :])
        assert mine == entry(laptop)
        assert mine == entry(other)  # both inboxes were empty: even the offsets agree
        assert mine["from_user_id"] == alice
        say(other, f"users/{alice}/inbox", "answer")
        first, second = entry(laptop), entry(other)
        assert first == second
        assert first["seq"] == 2


def test_typing_is_stamped_and_not_stored(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with device(node, bob, f"users/{bob}/#", "groups/#") as reader, device(node, alice) as writer:
        for topic, conversation in (
            (f"users/{bob}/typing", ":".join(["p", *sorted((alice, bob))])),
            (f"groups/{group}/typing", f"g:{group}"),
        ):
            writer.send(publish(topic, b"", 0))
            while (message := reader.message())[0] != topic:
                assert message[0] == f"users/{bob}/presence"
            assert json.loads(message[1]) == {
                "event": "typing",
                "from_user_id": alice,
                "conversation_id": conversation,
                "typing": True,
            }
            assert messages(node, conversation) == []


def presence(client: RawClient) -> tuple[str, int]:
    topic, payload, *_ = client.message()
    assert topic.endswith("/presence")
    document = json.loads(payload)
    assert set(document) == {"user_id", "status", "last_seen", "devices"}
    return document["status"], document["devices"]


def test_presence_over_several_devices(node: Node) -> None:
    alice, root = node.user("alice"), node.user("root", role="admin")
    topic = f"users/{alice}/presence"
    with device(node, root, topic) as watcher:
        phone = device(node, alice, name="phone", will=(topic, b'{"status":"offline"}', 1, True))
        assert presence(watcher) == ("online", 1)
        laptop = device(node, alice, name="laptop")
        assert presence(watcher) == ("online", 2)
        say(laptop, topic, '{"status":"busy"}')
        assert presence(watcher) == ("busy", 2)
        phone.socket.close()  # its will says offline; the laptop is still there
        seen = [presence(watcher)]
        while seen[-1] != ("busy", 1) and seen[-1] != ("online", 1):
            seen.append(presence(watcher))
        assert all(status != "offline" for status, _ in seen)
        laptop.send(packet(0xE0))
        laptop.socket.close()
        while seen[-1][0] != "offline":
            seen.append(presence(watcher))
        assert seen[-1] == ("offline", 0)
        with device(node, root, topic, name="late") as late:
            assert presence(late) == ("offline", 0)


def test_nobody_stays_online_after_a_kill(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    alice, root = node.user("alice"), node.user("root", role="admin")
    topic = f"users/{alice}/presence"
    with device(node, root, topic) as watcher, device(node, alice):
        assert presence(watcher) == ("online", 1)
        wait_for(lambda: retained(node, root, topic), "the presence to be stored")
        node.kill()
    node.start()
    with device(node, root, topic) as watcher:
        assert presence(watcher) == ("offline", 0)


def retained(node: Node, root: str, topic: str) -> bool:
    with device(node, root, topic, name="look") as client:
        client.send(packet(0xC0))
        received = client.receive()
        return received is not None and received.type == 3
