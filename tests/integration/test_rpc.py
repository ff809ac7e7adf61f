"""`messages.sync` and `messages.history` over MQTT RPC."""

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.node import Node, password
from tests.integration.raw import RawClient, publish, subscribe

_ids = itertools.count(1)


class Caller:
    """A device that calls methods and waits for their replies."""

    def __init__(self, node: Node, user: str) -> None:
        self.user = user
        self.client = RawClient(node.port)
        self.client.login("rpc", user, password(user))
        self.client.send(subscribe(1, (f"users/{user}/replies", 1)))
        self.client.expect(9)

    def close(self) -> None:
        self.client.socket.close()

    def send(self, topic: str, body: bytes) -> None:
        packet_id = next(_ids) % 65535 + 1
        self.client.send(publish(topic, body, 1, packet_id))
        self.client.expect(4)

    def raw(self, method: str, body: bytes) -> dict[str, Any]:
        # Without QoS 1 the reply is the next packet.
        self.client.send(publish(f"users/{self.user}/rpc/{method}", body))
        return dict(json.loads(self.client.message()[1]))

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        request_id = f"r{next(_ids)}"
        reply = self.raw(method, json.dumps({"request_id": request_id, **parameters}).encode())
        assert reply.pop("request_id") == request_id
        return reply

    def result(self, method: str, **parameters: object) -> dict[str, Any]:
        reply = self.call(method, **parameters)
        assert reply["ok"], reply
        return dict(reply["result"])


Connect = Callable[[str], Caller]


@pytest.fixture
def connect(node: Node) -> Iterator[Connect]:
    """`connect(user)`: a device of a user, closed when the test ends."""
    with ExitStack() as devices:
        yield lambda user: devices.enter_context(closing(Caller(node, user)))


def contents(result: dict[str, Any]) -> list[object]:
    return [message["content"] for message in result["messages"] if message["type"] != "system"]


def test_sync_from_zero_and_on(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    caller, writer = connect(bob), connect(alice)
    for number in range(7):
        writer.send(f"users/{bob}/inbox", b"private %d" % number)
        writer.send(f"groups/{group}", b"group %d" % number)
    inbox, topic = f"users/{bob}/inbox", f"groups/{group}"
    result = caller.result("messages.sync")
    assert contents(result) == [f"private {n}" for n in range(7)] + [f"group {n}" for n in range(7)]
    assert result["cursors"] == {inbox: 7, topic: 8}, "the group's first entry says that it was made"
    assert result["more"] is False
    assert {"offset", "seq", "id", "conversation_id"} <= set(result["messages"][0])

    got, cursors, more = [], {inbox: 2, topic: 6}, True
    while more:
        result = caller.result("messages.sync", cursors=cursors, limit=3)
        assert len(result["messages"]) <= 3
        got += contents(result)
        cursors, more = result["cursors"], result["more"]
    assert got == [f"private {n}" for n in range(2, 7)] + ["group 5", "group 6"]
    assert cursors == {inbox: 7, topic: 8}
    assert contents(caller.result("messages.sync", cursors=cursors)) == []


def test_sync_of_large_messages_comes_in_pieces(node: Node, connect: Connect) -> None:
    alice = node.user("alice")
    caller = connect(alice)
    for _ in range(5):
        caller.send(f"users/{alice}/inbox", b"x" * 100_000)
    got, cursors, more, calls = 0, {f"users/{alice}/inbox": 0}, True, 0
    while more:
        result = caller.result("messages.sync", cursors=cursors)
        got += len(result["messages"])
        cursors, more = result["cursors"], result["more"]
        calls += 1
    assert got == 5
    assert calls > 1


def test_history_back_and_forth(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    caller, other = connect(alice), connect(bob)
    for number in range(1, 31):
        caller.send(f"users/{bob}/inbox", b"%d" % number)
    conversation = ":".join(["p", *sorted((alice, bob))])
    for each in (caller, other):
        result = each.result("messages.history", conversation_id=conversation)
        assert contents(result) == [str(n) for n in range(11, 31)]
        result = each.result("messages.history", conversation_id=conversation, before_seq=11, limit=5)
        assert contents(result) == ["6", "7", "8", "9", "10"]
        result = each.result("messages.history", conversation_id=conversation, after_seq=28)
        assert contents(result) == ["29", "30"]


def test_new_member_reads_from_when_they_joined(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice)
    writer, reader = connect(alice), connect(bob)
    writer.send(f"groups/{group}", b"before")
    node.call("AddGroupMembers", pb.GroupMembersRequest(group_id=group, user_ids=[bob]))
    writer.send(f"groups/{group}", b"after")
    assert contents(reader.result("messages.history", conversation_id=f"g:{group}")) == ["after"]
    assert contents(reader.result("messages.sync", cursors={f"groups/{group}": 0})) == ["after"]
    assert contents(writer.result("messages.history", conversation_id=f"g:{group}")) == ["before", "after"]


ERRORS = [
    ("messages.nothing", {}, "unknown_method"),
    ("messages.sync", {"cursors": 5}, "invalid_params"),
    ("messages.sync", {"cursors": {"users/{me}/inbox": -1}}, "invalid_params"),
    ("messages.sync", {"cursors": {"users/{me}/inbox": 2**60}}, "invalid_params"),
    ("messages.sync", {"cursors": {"users/{me}/inbox": "1"}}, "invalid_params"),
    ("messages.sync", {"cursors": {"sensors/x": 0}}, "invalid_params"),
    ("messages.sync", {"limit": 0}, "invalid_params"),
    ("messages.sync", {"limit": 1001}, "invalid_params"),
    ("messages.sync", {"colour": "red"}, "invalid_params"),
    ("messages.sync", {"cursors": {"users/{other}/inbox": 0}}, "not_authorized"),
    ("messages.sync", {"cursors": {"groups/{group}": 0}}, "not_member"),
    ("messages.history", {}, "invalid_params"),
    ("messages.history", {"conversation_id": 5}, "invalid_params"),
    ("messages.history", {"conversation_id": "nonsense"}, "invalid_params"),
    ("messages.history", {"conversation_id": "p:b:a"}, "invalid_params"),
    ("messages.history", {"conversation_id": "p:{other}:{other}"}, "not_authorized"),
    ("messages.history", {"conversation_id": "g:{group}"}, "not_member"),
    (
        "messages.history",
        {"conversation_id": "p:{me}:{me}", "before_seq": 1, "after_seq": 1},
        "invalid_params",
    ),
    ("messages.history", {"conversation_id": "p:{me}:{me}", "limit": 101}, "invalid_params"),
    ("messages.history", {"conversation_id": "p:{me}:{me}", "before_seq": 0}, "invalid_params"),
]


@pytest.fixture(scope="module")
def people(node: Node) -> Iterator[tuple[Caller, dict[str, str]]]:
    me, other = node.user("me"), node.user("other")
    with closing(Caller(node, me)) as caller:
        yield caller, {"me": me, "other": other, "group": node.group(other)}


@pytest.mark.parametrize(("method", "parameters", "code"), ERRORS)
def test_errors(
    people: tuple[Caller, dict[str, str]], method: str, parameters: dict[str, object], code: str
) -> None:
    caller, names = people
    text = json.dumps(parameters)
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    reply = caller.call(method, **json.loads(text))
    assert reply["ok"] is False
    assert reply["error"]["code"] == code
    assert reply["error"]["detail"]


@pytest.mark.parametrize(
    "body", [b"nonsense", b"[]", b"5", b'{"a":', b"\xff", b'{"request_id": 7}', b"[" * 5000]
)
def test_requests_that_are_no_requests(people: tuple[Caller, dict[str, str]], body: bytes) -> None:
    reply = people[0].raw("messages.sync", body)
    assert reply["ok"] is False
    assert reply["error"]["code"] == "invalid_params"
    assert "request_id" not in reply
