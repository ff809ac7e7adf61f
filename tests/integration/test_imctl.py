"""imctl on a real node: a story from the first accounts to the last connection that is ended."""

import json
import subprocess
import sys
import time
from typing import Any

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device, private
from tests.integration.node import ROOT, Node, password, wait_for
from tests.integration.raw import RawClient, connect


class Operator:
    """Runs imctl on a node."""

    def __init__(self, node: Node) -> None:
        self._command = (sys.executable, "-m", "cli", "--data-dir", str(node.data_dir))

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (*self._command, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    def do(self, *arguments: str) -> str:
        """A command that must succeed; returns what it prints."""
        result = self._run(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    def get(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.do(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        """The one line of a command that must be refused."""
        result = self._run(*arguments)
        assert (result.returncode, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        return line


def address(device: Device) -> str:
    host, port = device.client.socket.getsockname()
    return f"{host}:{port}"


def test_people_and_a_group(node: Node) -> None:
    imctl = Operator(node)
    for user in ("ann", "ben", "cat"):
        imctl.do("user", "add", user, "--password", password(user))
    imctl.do("user", "update", "ben", "--name", "Ben", "--who-may-message", "contacts")
    assert imctl.get("user", "profile", "ben")["name"] == "Ben"
    assert "contacts only" in imctl.refused("send", "ben", "hi", "--as", "ann")
    imctl.do("contact", "request", "ben", "--as", "ann", "--note", "it's me")
    imctl.do("contact", "accept", "ann", "--as", "ben")
    assert [contact["user_id"] for contact in imctl.get("contact", "list", "--as", "ben")] == ["ann"]

    imctl.do("group", "create", "trio", "ben", "--owner", "ann", "--join", "open", "--announcement", "Hi")
    imctl.do("group", "join", "trio", "--as", "cat")
    imctl.do("group", "update", "trio", "--who-may-post", "admins", "--as", "ann")
    assert "not allowed" in imctl.refused("send", "g:trio", "hi", "--as", "cat")
    imctl.do("group", "role", "trio", "cat", "admin")
    imctl.do("send", "g:trio", "hi all", "--as", "cat", "--mention", "all")
    imctl.do("group", "ban", "trio", "ben", "--as", "cat")
    assert "banned" in imctl.refused("group", "join", "trio", "--as", "ben")
    shown = imctl.get("group", "show", "trio")
    assert [(member["user_id"], member["role"]) for member in shown["members"]] == [
        ("ann", "owner"),
        ("cat", "admin"),
    ]
    history = imctl.do("history", "g:trio")
    for said in ("cat joined", "system made cat admin", "hi all", "cat banned ben"):
        assert said in history
    imctl.do("group", "dismiss", "trio", "--yes")
    assert "dismissed" in imctl.refused("send", "g:trio", "anybody?")


def test_messages_and_conversations(node: Node) -> None:
    imctl = Operator(node)
    ann, ben = node.user("ann"), node.user("ben")
    where = private(ann, ben)
    with Device(node, ben) as device:
        first = imctl.get("send", ben, "helo", "--as", ann, "--client-msg-id", "c-1")
        imctl.do("edit", first["id"], "hello", "--as", ann)
        second = imctl.get("send", ben, "oops", "--as", ann, "--reply-to", first["id"])
        imctl.do("recall", second["id"])
        device.until(lambda: len(device.inbox) == 4, "all entries")
        assert [entry["type"] for entry in device.inbox] == ["text", "edit", "text", "recall"]
    history = imctl.do("history", where)
    assert "hello (edited)" in history
    assert "(recalled)" in history
    assert "oops" not in history

    assert imctl.get("conversations", "--as", ben)[0]["unread"] == 2, (
        "the edit and the recall are no messages"
    )
    imctl.do("read", where, "--as", ben)
    imctl.do("conversation", "set", where, "--pin", "--as", ben)
    (conversation,) = imctl.get("conversations", "--as", ben)
    assert (conversation["unread"], conversation["read_seq"], conversation["pinned"]) == (0, 4, True)
    assert {"user_id": ben, "read_seq": 4} in imctl.get("readers", first["id"])


def test_devices_are_shown_and_ended(node: Node) -> None:
    imctl = Operator(node)
    ann = node.user("ann")
    began = int(time.time() * 1000)
    with Device(node, ann, "phone") as phone, Device(node, ann, "laptop") as laptop:
        found = imctl.get("sessions", ann)
        assert [(each["client_id"], each["address"], each["state"]) for each in found] == [
            (f"{ann}-laptop", address(laptop), "online"),
            (f"{ann}-phone", address(phone), "online"),
        ]
        for each in found:
            assert began <= each["since"] <= time.time() * 1000
            assert (each["persistent"], each["subscriptions"], each["qos"]) == (True, 4, 1)
        laptop.until(lambda: laptop.presences[ann]["devices"] == 2, "the second device")
        (presence,) = imctl.get("presence", ann)
        assert (presence["status"], presence["devices"]) == ("online", 2)
        assert imctl.do("kick", ann) == f"2 connections of {ann} ended\n"
        assert imctl.get("sessions", ann, "--state", "online") == []
        for device in (phone, laptop):
            while not device.client.is_closed():
                pass  # what was sent before


def test_what_waits_for_devices_that_are_away(node: Node) -> None:
    imctl = Operator(node)
    ann, ben = node.user("ann"), node.user("ben")
    crew = node.group(ben)

    def session(client_id: str) -> Any:
        found = {each["client_id"]: each for each in imctl.get("sessions", ann)}
        return found[client_id]

    phone = Device(node, ann, "phone")
    phone.close()
    left = int(time.time() * 1000)
    wait_for(lambda: session(f"{ann}-phone")["state"] == "away", "the phone to be away")
    assert session(f"{ann}-phone")["since"] <= left + 1000
    assert session(f"{ann}-phone")["backlog"] == 0
    with Device(node, ben) as sender, Device(node, ann, "laptop"):
        for number in range(5):
            imctl.do("send", ann, f"message {number}", "--as", ben)
        node.call("AddGroupMembers", pb.GroupMembersRequest(group_id=crew, user_ids=[ann]))
        imctl.do("send", f"g:{crew}", "welcome", "--as", ben)
        sender.settle()
        # Five messages; in the group, the entry that says who joined, and one message; the event "added".
        assert session(f"{ann}-phone")["backlog"] == 8
        assert session(f"{ann}-laptop")["state"] == "online"
        assert session(f"{ann}-laptop")["backlog"] > 0, "it has read nothing: nothing is acknowledged"
        waiting = session(f"{ann}-phone")["backlog"]
        with Device(node, ann, "phone") as phone:
            phone.until(lambda: len(phone.entries.get(f"groups/{crew}", ())) == 2, "the group")
            got = sum(map(len, phone.entries.values())) + len(phone.events)
            assert got == waiting, "it gets as many as were said to wait"
            phone.until(lambda: session(f"{ann}-phone")["backlog"] == 0, "all to be acknowledged")
        node.call("RemoveGroupMembers", pb.GroupMembersRequest(group_id=crew, user_ids=[ann]))
        before = session(f"{ann}-phone")["backlog"]
        imctl.do("send", f"g:{crew}", "without ann", "--as", ben)
        assert session(f"{ann}-phone")["backlog"] == before, "a group that the user has left counts no more"


def test_tokens_are_revoked(node: Node) -> None:
    imctl = Operator(node)
    ann = node.user("ann")
    token = imctl.do("token", ann).strip()
    with RawClient(node.port) as by_token, RawClient(node.port) as by_password:
        by_token.login("by-token", ann, token)
        by_password.login("by-password", ann, password(ann))
        assert len(imctl.get("sessions", ann)) == 2
        assert imctl.do("revoke", ann) == f"tokens of {ann} revoked\n"
        assert by_token.is_closed()
        assert [session["client_id"] for session in imctl.get("sessions", ann)] == ["by-password"]
    with RawClient(node.port) as again:
        again.send(connect("by-token", ann, token))
        assert again.expect(2).body[1] == 5
