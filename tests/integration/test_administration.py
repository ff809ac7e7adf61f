"""`im.AdminService` of a real node: what back-end programs call, beside what imctl does."""

import json
from typing import Any

import grpc
import pytest

from bridge.administration import admin_operations
from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device, private
from tests.integration.node import DEADLINE, Node, password

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "invalid_params")
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "not_found")


def refusal(node: Node, method: str, request: Any) -> tuple[grpc.StatusCode, str, str]:
    """Status, code and details of a call that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        next(node.call(method, request)) if method == "Tail" else node.call(method, request)
    error: Any = raised.value
    code = str(dict(error.trailing_metadata()).get("im-error-code", ""))
    return error.code(), code, error.details()


def test_sending_takes_any_bytes(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with Device(node, bob) as device:
        for payload in (b"hi", b"\xff\x00", b'{"content":{"k":1},"type":"custom"}'):
            request = pb.SendMessageRequest(sender=alice, topic=f"users/{bob}/inbox", payload=payload)
            sent = node.call("SendMessage", request)
            assert sent.conversation_id == private(alice, bob)
        assert sent.seq == 3
        device.until(lambda: len(device.inbox) == 3, "the messages")
        entries = device.inbox
    assert [(entry["type"], entry["content"]) for entry in entries] == [
        ("text", "hi"),
        ("binary", "/wA="),
        ("custom", {"k": 1}),
    ]
    assert (entries[2]["id"], entries[2]["created_at"]) == (sent.id, sent.created_at)


def test_tail(node: Node) -> None:
    alice = node.user("alice")
    group = node.group(alice)
    topic = f"groups/{group}"

    def say(words: str) -> None:
        node.call("SendMessage", pb.SendMessageRequest(sender=alice, topic=topic, payload=words.encode()))

    say("before")
    now = node.admin.Tail(pb.TailRequest(topic=topic), metadata=node.metadata, timeout=DEADLINE)
    now.initial_metadata()  # from here on nothing is missed
    all_ = node.admin.Tail(pb.TailRequest(topic=topic, after=0), metadata=node.metadata, timeout=DEADLINE)
    say("now")
    assert json.loads(next(now).json)["content"] == "now"
    entries = [json.loads(next(all_).json) for _ in range(3)]
    assert [entry["offset"] for entry in entries] == [1, 2, 3]
    assert [entry["content"] for entry in entries[1:]] == ["before", "now"]
    now.cancel()
    all_.cancel()


def test_pages_and_what_zero_means(node: Node) -> None:
    owner, *others = (node.user("member") for _ in range(3))
    group = node.group(owner, *others)
    for limit, count in ((0, 3), (2, 2), (1000, 3)):
        page = node.call("GetGroup", pb.GetGroupRequest(group_id=group, limit=limit))
        assert (len(page.members), bool(page.next)) == (count, count < 3)
        assert (page.group.owner, page.group.member_count, page.group.name) == (owner, 3, group)
    rest = node.call("GetGroup", pb.GetGroupRequest(group_id=group, limit=2, after=page.members[1].user_id))
    assert [member.user_id for member in rest.members] == sorted([owner, *others])[2:]
    users = node.call("ListUsers", pb.PageRequest(limit=1, after=owner)).users
    assert len(users) == 1
    found = node.call("GetUser", pb.GetUserRequest(user_id=owner))
    assert (found.user.role, found.user.has_password) == ("user", True)
    assert [(member.group_id, member.role) for member in found.groups] == [(group, "owner")]
    bare = node.call("AddUser", pb.AddUserRequest(user_id=f"{owner}-bare", role="service"))
    assert (bare.role, bare.has_password) == ("service", False)


def test_members_that_change(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice)
    request = pb.GroupMembersRequest(group_id=group, user_ids=[alice, bob, bob])
    assert node.call("AddGroupMembers", request).changed == 1
    assert node.call("AddGroupMembers", request).changed == 0
    assert refusal(node, "RemoveGroupMembers", request)[1] == "is_owner"
    request = pb.GroupMembersRequest(group_id=group, user_ids=[bob])
    assert node.call("RemoveGroupMembers", request).changed == 1
    assert node.call("RemoveGroupMembers", request).changed == 0


@pytest.mark.parametrize(
    ("method", "request_", "words"),
    [
        ("AddUser", pb.AddUserRequest(user_id="two words"), "user_id"),
        ("AddUser", pb.AddUserRequest(user_id="new", role="king"), "role"),
        ("AddUser", pb.AddUserRequest(user_id="new", password="abc"), "4 to 1024 characters, not 3"),
        ("AddUser", pb.AddUserRequest(user_id="new", password=""), "4 to 1024 characters, not 0"),
        ("SetPassword", pb.SetPasswordRequest(user_id="new"), "4 to 1024 characters, not 0"),
        ("ListUsers", pb.PageRequest(limit=1001), "limit"),
        ("ListUsers", pb.PageRequest(limit=-1), "limit"),
        ("GetUser", pb.GetUserRequest(), "user_id"),
        ("IssueToken", pb.IssueTokenRequest(user_id="new"), "a token is valid for 1 to"),
        ("ListSessions", pb.ListSessionsRequest(user_id="a b"), "user_id"),
        ("CreateGroup", pb.CreateGroupRequest(owner="new"), "group_id"),
        ("CreateGroup", pb.CreateGroupRequest(group_id="new", owner="new", name="x" * 129), "name"),
        ("CreateGroup", pb.CreateGroupRequest(group_id="new", owner="a", members=["a b"]), "members[0]"),
        ("AddGroupMembers", pb.GroupMembersRequest(group_id="new"), "user_ids"),
        ("GetGroup", pb.GetGroupRequest(group_id="new", limit=1001), "limit"),
        ("Tail", pb.TailRequest(topic="sensors/one"), "is not an inbox or group topic"),
        ("Tail", pb.TailRequest(topic="groups/new", after=-1), "after"),
        ("History", pb.HistoryRequest(conversation_id="x"), "'x' is not a conversation"),
        ("History", pb.HistoryRequest(conversation_id="g:new", limit=101), "limit"),
        ("History", pb.HistoryRequest(conversation_id="g:new", before_seq=-1), "before_seq"),
    ],
)
def test_what_is_no_such_request(node: Node, method: str, request_: Any, words: str) -> None:
    status, code, details = refusal(node, method, request_)
    assert (status, code) == INVALID
    assert words in details


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetUser", pb.GetUserRequest(user_id="nobody")),
        ("SetPassword", pb.SetPasswordRequest(user_id="nobody", password="good enough")),
        ("SetUserDisabled", pb.SetUserDisabledRequest(user_id="nobody", disabled=True)),
        ("RemoveUser", pb.RemoveUserRequest(user_id="nobody")),
        ("IssueToken", pb.IssueTokenRequest(user_id="nobody", ttl_seconds=1)),
        ("RevokeTokens", pb.RevokeTokensRequest(user_id="nobody")),
        ("ListSessions", pb.ListSessionsRequest(user_id="nobody")),
        ("KickUser", pb.KickUserRequest(user_id="nobody")),
        ("CreateGroup", pb.CreateGroupRequest(group_id="new", owner="nobody")),
        ("AddGroupMembers", pb.GroupMembersRequest(group_id="nothing", user_ids=["nobody"])),
        ("GetGroup", pb.GetGroupRequest(group_id="nothing")),
        ("DismissGroup", pb.DismissGroupRequest(group_id="nothing")),
        ("SendMessage", pb.SendMessageRequest(sender="nobody", topic="groups/nothing", payload=b"hi")),
        ("Tail", pb.TailRequest(topic="users/nobody/inbox")),
        ("History", pb.HistoryRequest(conversation_id="p:nobody:noone")),
    ],
)
def test_what_is_not_there(node: Node, method: str, request_: Any) -> None:
    assert refusal(node, method, request_)[:2] == NOT_FOUND


def test_what_cannot_be_sent(node: Node) -> None:
    alice, gone = node.user("alice"), node.user("gone")
    node.call("SetUserDisabled", pb.SetUserDisabledRequest(user_id=gone, disabled=True))
    topic = f"users/{alice}/inbox"
    for sender, where, payload, code in (
        (gone, topic, b"hi", "disabled"),
        (alice, "sensors/one", b"hi", "invalid_params"),
        (alice, topic, b"x" * (256 * 1024 + 1), "invalid_payload"),
        (alice, topic, b'{"content": 1, "type": 5}', "invalid_payload"),
    ):
        request = pb.SendMessageRequest(sender=sender, topic=where, payload=payload)
        assert refusal(node, "SendMessage", request)[1] == code


def test_users_do_not_administrate_over_mqtt(node: Node) -> None:
    for user in (node.user("alice"), node.user("root", role="admin")):
        with Device(node, user) as device:
            for operation in admin_operations():
                assert device.refused(operation.name, user_id=user) == "unknown_method"


def test_an_id_that_exists_or_is_the_servers(node: Node) -> None:
    for user in (node.user("alice"), "system"):
        request = pb.AddUserRequest(user_id=user, password=password(user))
        assert refusal(node, "AddUser", request)[:2] == (grpc.StatusCode.ALREADY_EXISTS, "exists")
