"""Nobody learns of what they may not see: entries about hidden messages say nothing of them."""

import json
from typing import Any

from bridge.grpc_api import im_admin_pb2 as admin
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.im import Device, devices, private
from tests.integration.node import DEADLINE, Node, password

KEPT = {"id", "conversation_id", "seq", "offset", "type", "created_at", "content", "withheld", "n"}
"""The fields an entry that is withheld may have."""


def by_grpc(node: Node, user: str, where: str) -> list[dict[str, Any]]:
    """The entries of a conversation as a service reads them for the user."""
    stub = services.MessageServiceStub(node._channel)  # type: ignore[no-untyped-call]
    options: dict[str, Any] = {
        "metadata": (*node.metadata, ("im-on-behalf-of", user)),
        "timeout": DEADLINE,
    }
    page = stub.GetMessages(pb.GetMessagesRequest(conversation_id=where, limit=100), **options)
    stream = stub.SyncMessages(pb.SyncRequest(all_logs=True), **options)
    entries = [json.loads(each) for each in page.messages]
    ids = [entry["id"] for entry in entries]
    by_id = stub.GetMessagesById(pb.MessageIds(ids=ids), **options)
    assert [json.loads(each) for each in by_id.messages] == entries
    return entries + [json.loads(each.json) for each in stream]


def ways(node: Node, live: Device, back: Device, where: str, topic: str) -> dict[str, list[dict[str, Any]]]:
    """What a user gets to see of a conversation, each way."""
    view = live.conversation(where)
    return {
        "live": live.log(topic),
        "replayed": back.log(topic),
        "sync": live.sync()[topic],
        "history": live.rpc("messages.history", conversation_id=where)["messages"],
        "history after": live.rpc("messages.history", conversation_id=where, after_seq=0)["messages"],
        "history around": live.rpc("messages.history", conversation_id=where, around_seq=1)["messages"],
        "history around an id": live.rpc(
            "messages.history", conversation_id=where, around_id=live.log(topic)[0]["id"]
        )["messages"],
        "by id": live.rpc("messages.get", ids=[entry["id"] for entry in live.log(topic)])["messages"],
        "list": [view["last_message"]] if view["last_message"] else [],
        "gRPC": by_grpc(node, live.user, where),
    }


def assert_nothing_shown(seen: dict[str, list[dict[str, Any]]], *told: str) -> None:
    """No way tells any of this, and all but the list have both entries."""
    for way, entries in seen.items():
        for each in told:
            assert each not in str(entries), f"{way}: {entries}"
        hidden = [entry for entry in entries if entry.get("withheld")]
        for entry in hidden:
            assert entry.keys() <= KEPT, way
            assert (entry["content"], entry["withheld"]) == (None, "not_visible")
            assert KEPT - {"offset", "n"} <= entry.keys(), way
        if way != "list":
            assert {entry["type"] for entry in hidden} == {"edit", "recall"}, way


def test_what_was_said_before_one_joined(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob)
    topic, where = f"groups/{group}", f"g:{group}"
    with devices(node, alice, bob, carol, each=1) as (a, b, c), Device(node, carol, "back") as back:
        back.vanish()
        for text in ("a secret", "another secret"):
            a.post(group, text)
        one, two = (entry["id"] for entry in a.group(group)[-2:])
        a.rpc("groups.add", group_id=group, user_ids=[carol])
        a.rpc("messages.edit", id=one, content="a new secret")
        a.rpc("messages.recall", id=two)
        assert [entry.get("target_id") for entry in b.group(group)[-2:]] == [one, two]
        assert "a new secret" in str(b.group(group))
        back.connect()
        for device in (c, back):
            device.until(lambda device=device: len(device.group(group)) == 3, "what came after she joined")
        counted = node.stats()["withheld"]
        assert counted >= 2 * len((c, back)), "pushed to one device, replayed to the other"
        assert_nothing_shown(ways(node, c, back, where, topic), "secret", one, two)
        assert node.stats()["withheld"] >= counted + 2 * len(("sync", "history", "history after", "gRPC"))
        for method in ("messages.edit", "messages.recall", "messages.readers"):
            given = {"content": "x"} if method == "messages.edit" else {}
            assert c.refused(method, id=one, **given) == "not_found"
        c.post(group, {"content": "you said", "reply_to": one})
        assert c.error()["code"] == "not_found"
        # What she may see is hers to see as ever.
        a.post(group, "for all")
        mine = a.group(group)[-1]["id"]
        a.rpc("messages.edit", id=mine, content="for all of us")
        for device in (c, back):
            assert device.group(group)[-1]["content"] == "for all of us"


def test_a_member_who_was_removed_and_came_back(node: Node) -> None:
    """The device was connected all the time, so it learns anew what it may see."""
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        a.rpc("groups.remove", group_id=group, user_ids=[bob])
        a.post(group, "a secret")
        secret = a.group(group)[-1]["id"]
        b.rpc("groups.join", group_id=group)
        a.rpc("groups.accept", group_id=group, user_id=bob)
        a.rpc("messages.edit", id=secret, content="still a secret")
        b.until(lambda: [entry for entry in b.group(group) if entry.get("withheld")], "the entry")
        assert "secret" not in str(b.group(group))
        assert secret not in str(b.group(group))


def test_what_was_said_to_an_earlier_account(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    where, topic = private(alice, bob), f"users/{bob}/inbox"
    with Device(node, alice) as a:
        for text in ("a secret", "another secret"):
            a.say(bob, text)
        one, two = (entry["id"] for entry in a.inbox)
        node.call("RemoveUser", admin.RemoveUserRequest(user_id=bob))
        node.call("AddUser", admin.AddUserRequest(user_id=bob, password=password(bob), reuse_id=True))
        with Device(node, bob, "live") as b, Device(node, bob, "back") as back:
            back.vanish()
            a.rpc("messages.edit", id=one, content="a new secret")
            a.rpc("messages.recall", id=two)
            back.connect()
            for device in (b, back):
                device.until(lambda device=device: len(device.inbox) == 2, "what came since")
            assert_nothing_shown(ways(node, b, back, where, topic), "secret", one, two)
            b.say(alice, {"content": "you said", "reply_to": one})
            assert b.error()["code"] == "not_found"
