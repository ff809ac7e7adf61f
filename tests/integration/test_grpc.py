"""The services over gRPC, of a real node."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bridge.grpc_api import im_admin_pb2 as admin
from bridge.grpc_api import im_pb2 as pb
from tests.integration.grpc_kit import (
    Client,
    address,
    bearer,
    failure,
)
from tests.integration.im import Device, private
from tests.integration.node import DEADLINE, Node

Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def channel(node: Node) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address(node)) as opened:
        yield opened


@pytest.fixture(scope="module")
def connect(node: Node, channel: grpc.Channel) -> Connect:
    """`connect(user)`; without a user, with the admin token. `behalf`: on whose behalf."""

    def make(user: str | None = None, behalf: str | None = None) -> Client:
        token = bearer(node.token(user)) if user is not None else node.metadata[0]
        return Client(channel, token, *([("im-on-behalf-of", behalf)] if behalf is not None else []))

    return make


def text(words: str) -> bytes:
    return json.dumps(words).encode()


def contents(messages: Any) -> list[object]:
    return [json.loads(message)["content"] for message in messages]


# --- each service ------------------------------------------------------------------------


def test_messages(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    a, b = connect(alice), connect(bob)
    where = private(alice, bob)
    request = pb.SendRequest(user_id=bob, content=text("hi"), client_msg_id="c-1")
    sent = a.call("SendMessage", request)
    assert (sent.conversation_id, sent.seq) == (where, 1)
    assert a.call("SendMessage", request) == sent
    a.call("SendMessage", pb.SendRequest(user_id=bob, content=b'{"x":1}', type="custom", reply_to=sent.id))
    got = b.call("GetMessages", pb.GetMessagesRequest(conversation_id=where)).messages
    assert contents(got) == ["hi", {"x": 1}]
    assert json.loads(got[1])["reply_to"] == sent.id
    latest = pb.GetMessagesRequest(conversation_id=where, after_seq=1, limit=5)
    assert contents(b.call("GetMessages", latest).messages) == [{"x": 1}]
    b.call("MarkDelivered", pb.UptoRequest(conversation_id=where, seq=2))
    b.call("MarkRead", pb.UptoRequest(conversation_id=where, seq=1))
    (reader,) = a.call("GetReaders", pb.ReadersRequest(id=sent.id)).readers
    assert (reader.user_id, reader.read_seq) == (bob, 1)
    edit = a.call("EditMessage", pb.EditRequest(id=sent.id, content=text("hello"))).entry
    assert (json.loads(edit)["type"], json.loads(edit)["target_id"]) == ("edit", sent.id)
    recall = a.call("RecallMessage", pb.RecallRequest(id=sent.id)).entry
    assert json.loads(recall)["type"] == "recall"
    first = a.call("GetMessages", pb.GetMessagesRequest(conversation_id=where, before_seq=2)).messages
    assert contents(first) == [None]
    synced = list(b.call("SyncMessages", pb.SyncRequest()))
    assert [entry.offset for entry in synced] == [1, 2, 3, 4]
    assert {entry.topic for entry in synced} == {f"users/{bob}/inbox"}


def test_conversations(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    b = connect(bob)
    connect(alice).call("SendMessage", pb.SendRequest(user_id=bob, content=text("hi")))
    where = private(alice, bob)
    answer = b.call("ListConversations", pb.ListConversationsRequest())
    (view,) = answer.conversations
    assert (view.conversation_id, view.conversation_type, view.unread, view.pinned) == (
        where,
        "private",
        1,
        False,
    )
    assert json.loads(view.last_message)["content"] == "hi"
    assert answer.unread_total == 1
    pinned = b.call("SetConversation", pb.SetConversationRequest(conversation_id=where, pinned=True))
    assert pinned.pinned
    muted = b.call("SetConversation", pb.SetConversationRequest(conversation_id=where, muted=True))
    assert (muted.pinned, muted.muted) == (True, True)  # what is not given stays
    loose = b.call("SetConversation", pb.SetConversationRequest(conversation_id=where, pinned=False))
    assert (loose.pinned, loose.muted) == (False, True)


def test_contacts(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    a, b = connect(alice), connect(bob)
    a.call("RequestContact", pb.ContactRequest(user_id=bob, note="it is me"))
    (asked,) = b.call("ListContacts", pb.ListContactsRequest(state="received")).contacts
    assert (asked.user_id, asked.note) == (alice, "it is me")
    b.call("RejectContact", pb.ContactRequest(user_id=alice))
    a.call("RequestContact", pb.ContactRequest(user_id=bob))
    b.call("AcceptContact", pb.PeerRequest(user_id=alice))
    b.call("RemarkContact", pb.RemarkRequest(user_id=alice, remark="Al"))
    (contact,) = b.call("ListContacts", pb.ListContactsRequest()).contacts
    assert (contact.user_id, contact.state, contact.remark) == (alice, "contact", "Al")
    b.call("BlockUser", pb.PeerRequest(user_id=alice))
    send = pb.SendRequest(user_id=bob, content=text("hi"))
    assert a.refused("SendMessage", send) == (grpc.StatusCode.PERMISSION_DENIED, "blocked")
    b.call("UnblockUser", pb.PeerRequest(user_id=alice))
    a.call("SendMessage", send)
    b.call("RemoveContact", pb.PeerRequest(user_id=alice))
    assert not a.call("ListContacts", pb.ListContactsRequest()).contacts


def test_users(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    a = connect(alice)
    changed = a.call("UpdateUser", pb.UpdateUserRequest(name="Alice", read_receipts=False))
    assert (changed.name, changed.privacy.read_receipts) == ("Alice", False)
    a.call("UpdateUser", pb.UpdateUserRequest(avatar="https://example.org/a.png"))
    (own,) = a.call("GetUsers", pb.GetUsersRequest()).users
    assert (own.name, own.avatar, own.HasField("privacy")) == ("Alice", "https://example.org/a.png", True)
    seen = connect(bob).call("GetUsers", pb.GetUsersRequest(user_ids=[alice, "nobody-at-all"])).users
    assert [(user.name, user.HasField("privacy")) for user in seen] == [("Alice", False)]
    (presence,) = connect().call("GetPresence", pb.GetPresenceRequest(user_ids=[bob])).presences
    assert (presence.user_id, presence.status) == (bob, "offline")
    assert not connect(bob).call("GetPresence", pb.GetPresenceRequest(user_ids=[alice])).presences


def test_groups(node: Node, connect: Connect) -> None:
    alice, bob, carol, dave = (node.user(name) for name in ("alice", "bob", "carol", "dave"))
    a, b, c, d = (connect(user) for user in (alice, bob, carol, dave))
    made = a.call("CreateGroup", pb.NewGroupRequest(name="The team", members=[bob]))
    group = made.group_id
    assert (made.owner, made.members, made.role, made.join) == (alice, 2, "owner", "approval")
    one = pb.GroupRequest(group_id=group)
    assert b.call("GetGroup", one).role == "member"
    assert [each.group_id for each in b.call("ListGroups", pb.ListGroupsRequest(limit=5)).groups] == [group]
    update = pb.UpdateGroupRequest(group_id=group, announcement="Hear", history_visible=True)
    changed = a.call("UpdateGroup", update)
    assert (changed.name, changed.announcement, changed.history_visible) == ("The team", "Hear", True)
    added = b.call("AddMembers", pb.MembersRequest(group_id=group, user_ids=[bob, carol]))
    assert list(added.user_ids) == [carol]
    members = a.call("ListMembers", pb.MembersPageRequest(group_id=group, limit=2))
    assert len(members.members) == 2
    assert members.next
    a.call("SetRole", pb.RoleRequest(group_id=group, user_id=bob, role="admin"))
    muted = b.call("Mute", pb.MuteRequest(group_id=group, user_id=carol, until=2**50))
    assert muted.muted_until == 0  # of the group
    post = pb.SendRequest(group_id=group, content=text("hi"))
    assert c.refused("SendMessage", post) == (grpc.StatusCode.PERMISSION_DENIED, "muted")
    b.call("Mute", pb.MuteRequest(group_id=group, user_id=carol, until=0))
    c.call("SendMessage", post)
    b.call("RemoveMembers", pb.MembersRequest(group_id=group, user_ids=[carol]))
    ban = pb.BanRequest(group_id=group, user_id=carol)
    b.call("BanMember", ban)
    bans = b.call("ListBans", pb.MembersPageRequest(group_id=group)).bans
    assert [(each.user_id, each.until) for each in bans] == [(carol, 0)]
    member = pb.MemberRequest(group_id=group, user_id=carol)
    b.call("UnbanMember", member)
    joined = c.call("JoinGroup", pb.JoinRequest(group_id=group, note="again"))
    assert joined.status == "requested"
    d.call("JoinGroup", pb.JoinRequest(group_id=group))
    pending = a.call("ListJoinRequests", pb.MembersPageRequest(group_id=group)).requests
    assert {each.user_id: each.note for each in pending} == {carol: "again", dave: ""}
    a.call("AcceptJoinRequest", member)
    a.call("RejectJoinRequest", pb.MemberRequest(group_id=group, user_id=dave))
    c.call("LeaveGroup", one)
    assert a.refused("LeaveGroup", one) == (grpc.StatusCode.FAILED_PRECONDITION, "is_owner")
    assert a.call("TransferGroup", pb.MemberRequest(group_id=group, user_id=bob)).owner == bob
    b.call("DismissGroup", one)
    assert b.refused("SendMessage", post) == (grpc.StatusCode.FAILED_PRECONDITION, "dismissed")


def test_a_call_is_the_same_over_mqtt(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with Device(node, alice) as device, Device(node, bob) as other:
        sent = device.rpc("messages.send", user_id=bob, content="over MQTT", client_msg_id="c-1")
        again = connect(alice).call(
            "SendMessage", pb.SendRequest(user_id=bob, content=text("over MQTT"), client_msg_id="c-1")
        )
        assert sent == {name: getattr(again, name) for name in sent}
        connect(alice).call("SendMessage", pb.SendRequest(user_id=bob, content=text("over gRPC")))
        device.until(lambda: len(device.inbox) == 2, "the sender's own entries")
        assert [entry["content"] for entry in other.inbox] == ["over MQTT", "over gRPC"]


# --- who calls ---------------------------------------------------------------------------


def test_services_push_to_users_who_are_connected(node: Node, connect: Connect) -> None:
    robot, alice, bob = node.user("robot", role="service"), node.user("alice"), node.user("bob")
    request = pb.PushRequest(user_ids=[bob, alice, "nobody-here", alice], payload=text("ring"))
    with Device(node, alice) as device:
        for caller in (connect(robot), connect()):
            answer = caller.call("PushToUsers", request)
            assert (list(answer.reached), list(answer.missed)) == ([alice], [bob, "nobody-here"])
        device.until(lambda: len(device.events) == 2, "the events")
        assert device.events == [{"event": "push", "payload": "ring"}] * 2
    for caller in (connect(alice), connect(robot, behalf=alice)):
        assert caller.refused("PushToUsers", request)[1] == "not_authorized"
    long = pb.PushRequest(user_ids=[alice], payload=text("x" * 70_000))
    assert connect(robot).refused("PushToUsers", long)[1] == "invalid_params"


def test_service_accounts_speak_for_the_system_and_for_users(node: Node, connect: Connect) -> None:
    robot, alice, bob = node.user("robot", role="service"), node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    where = pb.GetMessagesRequest(conversation_id=f"g:{group}")
    post = pb.SendRequest(group_id=group, content=text("hi"))
    connect(robot).call("SendMessage", post)
    connect(robot, behalf=alice).call("SendMessage", post)
    connect(behalf=bob).call("SendMessage", post)
    messages = [json.loads(message) for message in connect(bob).call("GetMessages", where).messages]
    assert [each["from_user_id"] for each in messages if each["type"] == "text"] == ["system", alice, bob]
    # as the user, no more than the user may
    node.call("RemoveGroupMembers", admin.GroupMembersRequest(group_id=group, user_ids=[bob]))
    assert connect(robot, behalf=bob).refused("SendMessage", post) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "not_member",
    )


def test_credentials(node: Node, channel: grpc.Channel, connect: Connect) -> None:
    robot, alice, bob = node.user("robot", role="service"), node.user("alice"), node.user("bob")
    gone = node.user("gone")
    as_gone = connect(gone)
    node.call("SetUserDisabled", admin.SetUserDisabledRequest(user_id=gone, disabled=True))
    unauthenticated = (grpc.StatusCode.UNAUTHENTICATED, "unauthenticated")
    denied = (grpc.StatusCode.PERMISSION_DENIED, "not_authorized")
    for client, expected in (
        (Client(channel), unauthenticated),
        (Client(channel, bearer("wrong")), unauthenticated),
        (as_gone, unauthenticated),
        (connect(alice, behalf=bob), denied),
        (connect(robot, behalf=gone), (grpc.StatusCode.PERMISSION_DENIED, "disabled")),
        (connect(robot, behalf="nobody-at-all"), (grpc.StatusCode.NOT_FOUND, "not_found")),
    ):
        assert client.refused("GetUsers", pb.GetUsersRequest()) == expected
        assert client.refused("SyncMessages", pb.SyncRequest()) == expected
    for user, allowed in ((alice, False), (robot, False), (node.user("root", role="admin"), True)):
        metadata = connect(user).metadata
        if allowed:
            assert node.admin.Stats(admin.StatsRequest(), metadata=metadata, timeout=DEADLINE).values
        else:
            with pytest.raises(grpc.RpcError) as raised:
                node.admin.Stats(admin.StatsRequest(), metadata=metadata, timeout=DEADLINE)
            assert failure(raised.value) == denied


# --- streams, batches, deadlines ---------------------------------------------------------


def test_sync_follows_membership(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice)
    a = connect(alice)
    stream = connect(bob).call("SyncMessages", pb.SyncRequest(follow=True))

    def entry() -> tuple[str, object]:
        got = next(stream)
        return got.topic, json.loads(got.json)["content"]

    def post(words: str) -> None:
        a.call("SendMessage", pb.SendRequest(group_id=group, content=text(words)))

    a.call("SendMessage", pb.SendRequest(user_id=bob, content=text("hi")))
    assert entry() == (f"users/{bob}/inbox", "hi")
    post("before")
    node.call("AddGroupMembers", admin.GroupMembersRequest(group_id=group, user_ids=[bob]))
    topic, notice = entry()
    assert (topic, dict(notice)["event"]) == (f"groups/{group}", "members_added")  # type: ignore[call-overload]
    post("now")
    assert entry() == (f"groups/{group}", "now")
    node.call("RemoveGroupMembers", admin.GroupMembersRequest(group_id=group, user_ids=[bob]))
    post("secret")
    a.call("SendMessage", pb.SendRequest(user_id=bob, content=text("bye")))
    assert entry() == (f"users/{bob}/inbox", "bye")
    stream.cancel()


def test_a_batch_keeps_its_order_and_one_bad_item_is_its_own_affair(node: Node, connect: Connect) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    batch = [pb.SendRequest(user_id=bob, content=text(str(number))) for number in range(500)]
    batch[250] = pb.SendRequest(user_id="nobody-at-all", content=text("250"))
    results = connect(alice).call("SendMessages", pb.SendBatchRequest(messages=batch)).results
    assert len(results) == 500
    assert results[250].error.code == "not_found"
    assert not results[250].HasField("sent")
    seqs = [result.sent.seq for result in results if result.HasField("sent")]
    assert seqs == list(range(1, 500))
    history = node.history(private(alice, bob))
    assert [message["content"] for message in history] == [str(n) for n in range(500) if n != 250]


def test_deadlines(node: Node, connect: Connect) -> None:
    alice = node.user("alice")
    stream = connect(alice).call("SyncMessages", pb.SyncRequest(follow=True), timeout=0.3)
    with pytest.raises(grpc.RpcError) as raised:
        list(stream)
    assert failure(raised.value)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(grpc.RpcError) as raised:
        connect(alice).call("GetUsers", pb.GetUsersRequest(), timeout=-1)  # it has passed
    assert failure(raised.value)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    connect(alice).call("GetUsers", pb.GetUsersRequest())


def test_a_node_that_stops_ends_streams(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    alice = node.user("alice")
    with grpc.insecure_channel(address(node)) as channel:
        client = Client(channel, bearer(node.token(alice)))
        stream = client.call("SyncMessages", pb.SyncRequest(follow=True))
        stream.initial_metadata()
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began < 10
        with pytest.raises(grpc.RpcError):
            list(stream)
    assert "Traceback" not in node.log()


# --- health, reflection, TLS -------------------------------------------------------------


def test_health_and_reflection(channel: grpc.Channel, connect: Connect) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    names = ["MessageService", "ConversationService", "ContactService", "UserService", "GroupService"]
    names = [f"im.{name}" for name in (*names, "AdminService")]
    for name in ("", *names):
        reply = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=DEADLINE)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="im.MessageService"),
    ]
    metadata = connect().metadata
    listed, file = reflection.ServerReflectionInfo(iter(asked), metadata=metadata, timeout=DEADLINE)
    assert set(names) <= {service.name for service in listed.list_services_response.service}
    assert file.file_descriptor_response.file_descriptor_proto
