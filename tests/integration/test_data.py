"""A message's fields: unknown ones are refused by name, `data` and `traceparent` are kept everywhere."""

import json

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2 as admin
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.grpc_kit import address, bearer
from tests.integration.im import Device, assert_same, devices, private
from tests.integration.node import Node
from tests.integration.raw import publish

DATA = {"order": 7, "tags": ["a", "b"], "price": 1.50, "note": "für dich"}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def kept(entry: dict[str, object]) -> tuple[object, object, object]:
    return entry["content"], entry.get("data"), entry.get("traceparent")


@pytest.mark.parametrize("where", ["inbox", "group"])
def test_data_is_delivered_and_read_later(node: Node, where: str) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    topic = f"users/{bob}/inbox" if where == "inbox" else f"groups/{group}"
    conversation = private(alice, bob) if where == "inbox" else f"g:{group}"
    with devices(node, alice, bob) as (a1, a2, b1, b2):
        b2.vanish()
        a1.publish(topic, {"content": "hi", "data": DATA, "traceparent": TRACE, "client_msg_id": "c-1"})
        expected = ("hi", DATA, TRACE)

        def last(device: Device) -> dict[str, object]:
            return (device.inbox if where == "inbox" else device.group(group))[-1]

        assert kept(last(b1)) == expected
        assert kept(b1.rpc("messages.history", conversation_id=conversation)["messages"][-1]) == expected
        assert kept(b1.conversation(conversation)["last_message"]) == expected
        b2.connect()
        assert kept(last(b2)) == expected
        # Sent again it is the same message; with other data it is another one.
        a1.publish(topic, {"content": "hi", "data": DATA, "client_msg_id": "c-1"})
        assert not a1.told("error")
        a1.publish(topic, {"content": "hi", "data": {}, "client_msg_id": "c-1"})
        assert a1.error()["code"] == "duplicate_conflict"
        # An edit leaves it as it is, a recall deletes it.
        target = last(b1)["id"]
        a1.rpc("messages.edit", id=target, content="hello")
        (shown,) = (
            each
            for each in b1.rpc("messages.history", conversation_id=conversation)["messages"]
            if each["id"] == target
        )
        assert kept(shown) == ("hello", DATA, TRACE)
        assert_same(a1, a2, b1, b2)
        a1.rpc("messages.recall", id=target)
        assert "für dich" not in str(b1.rpc("messages.history", conversation_id=conversation))
        assert "für dich" not in str(b1.sync())
        assert_same(a1, a2, b1, b2)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_unknown_field_is_refused_at_any_qos(node: Node, qos: int) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    before = node.stats().get("refused.invalid_payload", 0)
    with devices(node, alice, bob, each=1) as (a, b):
        payload = json.dumps({"content": "x", "extra": 1, "client_msg_id": "c-1"}).encode()
        a.client.send(publish(f"users/{bob}/inbox", payload, qos, 7 * bool(qos)))
        a.until(lambda: a.told("error"), "the refusal")
        assert a.error()["code"] == "invalid_payload"
        assert a.error()["reason_code"] == 0x99
        assert "`extra`" in a.error()["detail"]
        assert a.error()["client_msg_id"] == "c-1"
        assert b.inbox == []
    assert node.stats()["refused.invalid_payload"] == before + 1


def test_calls_send_data_and_refuse_what_they_do_not_know(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        a.rpc("messages.send", user_id=bob, content="one", data=DATA, traceparent=TRACE)
        batch = [
            {"user_id": bob, "content": "two", "data": {"n": 2}},
            {"user_id": bob, "content": "three", "data": {"x": "y" * 5000}},
            {"user_id": bob, "content": "four", "traceparent": "00-x"},
        ]
        results = a.rpc("messages.send_batch", messages=batch)["results"]
        assert [each["error"] and each["error"]["code"] for each in results] == [
            None,
            "invalid_payload",
            "invalid_payload",
        ]
        assert [kept(entry) for entry in b.inbox] == [("one", DATA, TRACE), ("two", {"n": 2}, None)]
        assert a.refused("messages.send", user_id=bob, content="x", extra=1) == "invalid_params"
        assert a.refused("messages.send", user_id=bob, content="x", data=[1]) == "invalid_params"
        big = {"x": "y" * 5000}
        assert a.refused("messages.send", user_id=bob, content="x", data=big) == "invalid_payload"


def test_grpc_sends_data_and_refuses_what_it_does_not_know(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    metadata = [bearer(node.token(alice))]
    with grpc.insecure_channel(address(node)) as channel, Device(node, bob) as b:
        stub = services.MessageServiceStub(channel)
        request = pb.SendRequest(
            user_id=bob, content=b'"hi"', data=json.dumps(DATA).encode(), traceparent=TRACE
        )
        stub.SendMessage(request, metadata=metadata)
        assert kept(b.inbox[-1]) == ("hi", DATA, TRACE)
        wrong = pb.SendRequest(user_id=bob, content=b'"hi"', data=b"[1]")
        later = pb.SendRequest.FromString(request.SerializeToString() + b"\xa2\x06\x01x")  # field 100
        batch = pb.SendBatchRequest(messages=[later])
        for method, bad in (
            (stub.SendMessage, wrong),
            (stub.SendMessage, later),
            (stub.SendMessages, batch),
        ):
            with pytest.raises(grpc.RpcError) as refusal:
                method(bad, metadata=metadata)
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "data" in refusal.value.details() or "field 100" in refusal.value.details()
        assert len(b.inbox) == 1


def test_an_administrator_s_message_is_checked_too(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    topic = f"users/{bob}/inbox"
    good = admin.SendMessageRequest(sender=alice, topic=topic, payload=b'{"content":"x","data":{"a":1}}')
    node.call("SendMessage", good)
    assert node.history(private(alice, bob))[-1]["data"] == {"a": 1}
    with pytest.raises(grpc.RpcError, match="`extra`"):
        node.call(
            "SendMessage",
            admin.SendMessageRequest(sender=alice, topic=topic, payload=b'{"content":"x","extra":1}'),
        )
