"""Whoever may not send there now may not edit there now, whatever the reason."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api import im_pb2 as im
from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.im import Device, devices
from tests.integration.node import DEADLINE, Node

FOREVER = 2**52


class Case(NamedTuple):
    """Bob wrote to alice, or to alice's group; then this happens."""

    code: str
    happens: Callable[[Node, Device, Device, str], object]
    """Given the node, alice's device, bob's device, and the group."""


IN_GROUP = {
    "a member is muted": Case(
        "muted", lambda _, a, b, g: a.rpc("groups.mute", group_id=g, user_id=b.user, until=FOREVER)
    ),
    "an admin is muted": Case(
        "muted",
        lambda _, a, b, g: (
            a.rpc("groups.set_role", group_id=g, user_id=b.user, role="admin"),
            a.rpc("groups.mute", group_id=g, user_id=b.user, until=FOREVER),
        ),
    ),
    "all are muted": Case("muted", lambda _, a, b, g: a.rpc("groups.mute", group_id=g, until=FOREVER)),
    "only admins may post": Case(
        "not_authorized", lambda _, a, b, g: a.rpc("groups.update", group_id=g, who_may_post="admins")
    ),
    "it is dismissed": Case("dismissed", lambda _, a, b, g: a.rpc("groups.dismiss", group_id=g)),
    "he left": Case("not_member", lambda _, a, b, g: b.rpc("groups.leave", group_id=g)),
    "he is banned": Case("not_member", lambda _, a, b, g: a.rpc("groups.ban", group_id=g, user_id=b.user)),
}
PRIVATE = {
    "contacts only": Case(
        "not_contact", lambda _, a, b, g: a.rpc("users.update", who_may_message="contacts")
    ),
    "she blocks him": Case("blocked", lambda _, a, b, g: a.rpc("contacts.block", user_id=b.user)),
    "he blocks her": Case("blocked", lambda _, a, b, g: b.rpc("contacts.block", user_id=a.user)),
    "she is gone": Case(
        "not_found", lambda node, a, b, g: node.call("RemoveUser", pb.RemoveUserRequest(user_id=a.user))
    ),
}


def edit_by_grpc(node: Node, user: str, message: str) -> str:
    """The code by which a service is refused to edit for the user."""
    stub = services.MessageServiceStub(node._channel)  # type: ignore[no-untyped-call]
    with pytest.raises(grpc.RpcError) as raised:
        stub.EditMessage(
            im.EditRequest(id=message, content=json.dumps("by a service").encode()),
            metadata=(*node.metadata, ("im-on-behalf-of", user)),
            timeout=DEADLINE,
        )
    error: Any = raised.value
    return str(dict(error.trailing_metadata())["im-error-code"])


@pytest.mark.parametrize("case", IN_GROUP.values(), ids=list(IN_GROUP))
def test_in_a_group(node: Node, case: Case) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    group = node.group(alice, bob, carol)
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        b.post(group, "before")
        message = b.group(group)[-1]["id"]
        case.happens(node, a, b, group)
        b.post(group, "after")
        assert b.error()["code"] == case.code
        assert b.refused("messages.edit", id=message, content="after") == case.code
        assert edit_by_grpc(node, bob, message) == case.code
        assert "edit" not in [entry["type"] for entry in c.group(group)]


@pytest.mark.parametrize("case", PRIVATE.values(), ids=list(PRIVATE))
def test_between_two(node: Node, case: Case) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        b.say(alice, "before")
        message = b.inbox[-1]["id"]
        case.happens(node, a, b, "")
        b.say(alice, "after")
        assert b.error()["code"] == case.code
        assert b.refused("messages.edit", id=message, content="after") == case.code
        assert edit_by_grpc(node, bob, message) == case.code
        b.rpc("messages.recall", id=message)


def test_when_the_reason_is_gone(node: Node) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with devices(node, alice, bob, each=1) as (a, b):
        b.post(group, "helo")
        message = b.group(group)[-1]["id"]
        a.rpc("groups.mute", group_id=group, user_id=bob, until=FOREVER)
        assert b.refused("messages.edit", id=message, content="hello") == "muted"
        a.rpc("groups.mute", group_id=group, user_id=bob, until=0)
        b.rpc("messages.edit", id=message, content="hello")
        assert a.group(group)[-1]["content"] == "hello"
