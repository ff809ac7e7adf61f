"""Nobody gets rid of a mute by leaving a group, or by being removed, and coming back."""

from collections.abc import Callable
from typing import Any

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device, devices
from tests.integration.node import Node

FOREVER = 2**52


def _leave(_: Device, member: Device, group: str) -> None:
    member.rpc("groups.leave", group_id=group)


def _remove(admin: Device, member: Device, group: str) -> None:
    admin.rpc("groups.remove", group_id=group, user_ids=[member.user])


def _ban(admin: Device, member: Device, group: str) -> None:
    admin.rpc("groups.ban", group_id=group, user_id=member.user)
    admin.rpc("groups.unban", group_id=group, user_id=member.user)


def _join(admin: Device, member: Device, group: str) -> None:
    admin.rpc("groups.update", group_id=group, join="open")
    assert member.rpc("groups.join", group_id=group)["status"] == "joined"


def _accept(admin: Device, member: Device, group: str) -> None:
    assert member.rpc("groups.join", group_id=group)["status"] == "requested"
    admin.rpc("groups.accept", group_id=group, user_id=member.user)


def _add(admin: Device, member: Device, group: str) -> None:
    admin.rpc("groups.add", group_id=group, user_ids=[member.user])


def _add_by_administrator(node: Node) -> Callable[[Device, Device, str], None]:
    def add(_: Device, member: Device, group: str) -> None:
        request = pb.GroupMembersRequest(group_id=group, user_ids=[member.user])
        assert node.call("AddGroupMembers", request).changed == 1

    return add


def _muted_until(admin: Device, member: Device, group: str) -> int:
    members = admin.rpc("groups.members", group_id=group)["members"]
    return int(next(each["muted_until"] for each in members if each["user_id"] == member.user))


@pytest.mark.parametrize("out", [_leave, _remove, _ban])
def test_whoever_comes_back_is_still_muted(node: Node, out: Callable[[Device, Device, str], None]) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = str(a.rpc("groups.create", members=[bob])["group_id"])
        a.rpc("groups.mute", group_id=group, user_id=bob, until=FOREVER)
        for back in (_accept, _add_by_administrator(node), *([] if out is _leave else [_add]), _join):
            out(a, b, group)
            assert a.refused("groups.mute", group_id=group, user_id=bob, until=0) == "not_found"
            back(a, b, group)
            assert b.refused("messages.send", group_id=group, content="again") == "muted", back
            assert _muted_until(a, b, group) == FOREVER
        # It ends as any mute does, and whoever is not muted comes back so.
        a.rpc("groups.mute", group_id=group, user_id=bob, until=0)
        out(a, b, group)
        _join(a, b, group)
        b.rpc("messages.send", group_id=group, content="again")


def test_another_group_with_the_same_id_takes_over_no_mute(node: Node) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    with devices(node, alice, bob, carol, each=1) as (a, b, c):
        group = str(a.rpc("groups.create", members=[bob, carol])["group_id"])
        for user in (bob, carol):
            a.rpc("groups.mute", group_id=group, user_id=user, until=FOREVER)
        b.rpc("groups.leave", group_id=group)
        _remove(a, c, group)
        a.rpc("groups.dismiss", group_id=group)
        a.rpc("groups.create", group_id=group, members=[carol], join="open")
        b.rpc("groups.join", group_id=group)
        for device in (b, c):
            device.rpc("messages.send", group_id=group, content="here")


def test_a_mute_is_kept_over_a_restart(make_node: Any) -> None:
    node: Node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    with devices(node, alice, bob, each=1) as (a, b):
        group = str(a.rpc("groups.create", members=[bob], join="open")["group_id"])
        a.rpc("groups.mute", group_id=group, user_id=bob, until=FOREVER)
        b.rpc("groups.leave", group_id=group)
    node.kill()
    node.start()
    with Device(node, bob) as b:
        b.rpc("groups.join", group_id=group)
        assert b.refused("messages.send", group_id=group, content="again") == "muted"
