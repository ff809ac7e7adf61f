"""kill -9 at every commit of an operation that writes more than once: it is not there, or it is whole.

Each test has an operation cut short at its first commit, its second, and so on, in place of it or just
after it, until it comes through. After each restart all that can be seen is asked for.
"""

import itertools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device, Entry, private
from tests.integration.node import ROOT, Node, wait_for
from tests.integration.raw import RawClient, subscribe

MOMENTS = ("before", "after")

_names = itertools.count(1)


class DyingNode(Node):
    """A node that crashes at a chosen commit, and starts again."""

    def __init__(self, directory: Path) -> None:
        # Nothing is written later on for who was connected: the commits that count are the operation's.
        super().__init__(directory, ["limits.presence_grace=0"])
        self.doom = directory / "doom"

    def command(self) -> list[str]:
        python, _, _, *arguments = super().command()
        return [python, "-m", "tests.integration.dying_node", str(self.doom), *arguments]

    def pid(self) -> int:
        return int(json.loads((self.data_dir / "node.json").read_bytes())["pid"])

    def comes_back(self, before: int) -> None:
        """Wait for the process that follows the one with this id."""
        assert self._channel is not None
        self._channel.close()
        wait_for(lambda: self._is_up() and self.pid() != before, f"the next process:\n{self.log()}")
        self.meet()
        assert select(self, "directory.db", "SELECT count(*) FROM notices") == [(0,)]

    def user(self, prefix: str = "u", role: str = "user") -> str:
        """As `Node.user`, without a password: hashing it takes long."""
        name = f"{prefix}-{next(_names)}"
        self.call("AddUser", pb.AddUserRequest(user_id=name, role=role))
        return name


class Cut:
    """A context in which the node dies at a commit. `died`: there were as many."""

    def __init__(self, node: DyingNode, when: str) -> None:
        self._node = node
        self._when = when
        self.died = False

    def __enter__(self) -> None:
        self._before = self._node.pid()
        self._node.doom.write_text(self._when)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.died = not self._node.doom.exists()
        self._node.doom.unlink(missing_ok=True)
        if self.died:
            self._node.comes_back(self._before)
        return self.died


def cuts(node: DyingNode, moment: str, least: int) -> Iterator[Cut]:
    """Cuts at one commit after the other, `least` of them at least, and the one that cuts nothing."""
    for number in itertools.count(1):
        cut = Cut(node, f"{moment} {number}")
        yield cut
        if not cut.died:
            assert number > least, f"only {number - 1} commits"
            return


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DyingNode]:
    made = DyingNode(tmp_path_factory.mktemp("dying"))
    made.start()
    yield made
    made.stop()
    assert "Traceback" not in made.log()


class Caller(Device):
    """Calls methods and is subscribed to their replies only: nothing is written for it meanwhile."""

    def connect(self) -> Device:
        self.client = login(self.node, self.user, "caller", clean=True)
        self.client.send(subscribe(1, (f"users/{self.user}/replies", 1)))
        self._read_until(9)
        wait_for_presences(self.node, self.user)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.socket.close()
        wait_for_presences(self.node)


def login(node: Node, user: str, client_id: str, clean: bool) -> RawClient:
    client = RawClient(node.port)
    client.login(client_id, user, node.token(user), clean=clean)
    return client


def wait_for_presences(node: Node, *users: str) -> None:
    """Wait until the store has exactly these users as online."""
    live = [(f"users/{user}/presence",) for user in users]
    query = "SELECT topic FROM retained WHERE live"
    wait_for(lambda: select(node, "parley.db", query) == live, "the presence to be stored")


def select(node: Node, file: str, query: str) -> list[Any]:
    database = sqlite3.connect(f"file:{node.data_dir / file}?mode=ro", uri=True)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


# --- what can be seen -------------------------------------------------------------------


def ask(node: Node, user: str, method: str, **parameters: Any) -> Any:
    with Caller(node, user) as caller:
        return caller.rpc(method, **parameters)


def inbox(node: Node, user: str) -> list[Entry]:
    return ask(node, user, "messages.sync", cursors={f"users/{user}/inbox": 0})["messages"]  # type: ignore[no-any-return]


def listed(node: Node, user: str) -> dict[str, Any]:
    views = ask(node, user, "conversations.list")["conversations"]
    return {view["conversation_id"]: view for view in views}


def exists(call: Callable[[], Any]) -> Any:
    """What a call returns, or None if there is no such thing."""
    try:
        return call()
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return None


def members(node: Node, group: str) -> set[str]:
    found = node.call("GetGroup", pb.GetGroupRequest(group_id=group))
    assert found.group.member_count == len(found.members)
    return {member.user_id for member in found.members}


def happened(node: Node, group: str) -> list[str]:
    """The events in a group's log, in order."""
    history = node.history(f"g:{group}")
    assert [entry["seq"] for entry in history] == list(range(1, len(history) + 1))
    return [entry["content"]["event"] for entry in history]


# --- the operations -----------------------------------------------------------------------


@pytest.mark.parametrize("moment", MOMENTS)
def test_making_a_group(node: DyingNode, moment: str) -> None:
    alice, bob, carol = (node.user(name) for name in ("alice", "bob", "carol"))
    for number, cut in enumerate(cuts(node, moment, least=3)):
        group = f"team-{moment}-{number}"
        with cut:
            node.group(alice, bob, carol, name=group)
        if exists(lambda group=group: node.history(f"g:{group}")) is None:
            assert cut.died
            assert f"g:{group}" not in listed(node, alice)
            node.group(alice, bob, carol, name=group)
        assert members(node, group) == {alice, bob, carol}
        assert happened(node, group) == ["group_created"]
        for user in (alice, carol):
            view = listed(node, user)[f"g:{group}"]
            assert (view["head_seq"], view["last_message"], view["unread"]) == (1, None, 0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_adding_members(node: DyingNode, moment: str) -> None:
    alice, bob, carol = (node.user(name) for name in ("alice", "bob", "carol"))
    for cut in cuts(node, moment, least=3):
        group = node.group(alice)
        with cut:
            node.call("AddGroupMembers", pb.GroupMembersRequest(group_id=group, user_ids=[bob, carol]))
        added = members(node, group) == {alice, bob, carol}
        assert added or (cut.died and members(node, group) == {alice})
        assert happened(node, group) == ["group_created"] + ["members_added"] * added
        for user in (bob, carol):
            assert (f"g:{group}" in listed(node, user)) == added


@pytest.mark.parametrize("moment", MOMENTS)
def test_accepting_a_contact(node: DyingNode, moment: str) -> None:
    for cut in cuts(node, moment, least=3):
        alice, bob = node.user("alice"), node.user("bob")
        ask(node, alice, "contacts.request", user_id=bob)
        with Caller(node, bob) as b, cut:
            b.rpc("contacts.accept", user_id=alice)
        states = [
            ask(node, user, "contacts.list", state="all")["contacts"][0]["state"] for user in (alice, bob)
        ]
        accepted = states == ["contact", "contact"]
        assert accepted or (cut.died and states == ["sent", "received"])
        for user in (alice, bob):
            told = [entry["content"]["event"] for entry in inbox(node, user)]
            assert told == ["contact_requested"] + ["contact_accepted"] * accepted
            assert listed(node, user)[private(alice, bob)]["head_seq"] == len(told)


@pytest.mark.parametrize("moment", MOMENTS)
def test_dismissing_a_group(node: DyingNode, moment: str) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    for cut in cuts(node, moment, least=3):
        group = node.group(alice, bob)
        with cut:
            node.call("DismissGroup", pb.DismissGroupRequest(group_id=group))
        dismissed = happened(node, group) == ["group_created", "group_dismissed"]
        assert dismissed or (cut.died and happened(node, group) == ["group_created"])
        groups = ask(node, bob, "groups.list")["groups"]
        assert (group in [view["group_id"] for view in groups]) == (not dismissed)
        assert bool(ask(node, bob, "groups.get", group_id=group)["dismissed_at"]) == dismissed


@pytest.mark.parametrize("moment", MOMENTS)
def test_removing_a_user(node: DyingNode, moment: str) -> None:
    alice = node.user("alice")
    for cut in cuts(node, moment, least=4):
        bob = node.user("bob")
        groups = [node.group(alice, bob), node.group(alice, bob)]
        ask(node, alice, "contacts.request", user_id=bob)
        with login(node, bob, "phone", clean=False) as phone:
            phone.send(subscribe(1, (f"users/{bob}/events", 1)))
            phone.expect(9)
        wait_for_presences(node)
        with cut:
            node.call("RemoveUser", pb.RemoveUserRequest(user_id=bob))
        removed = exists(lambda bob=bob: node.call("GetUser", pb.GetUserRequest(user_id=bob))) is None
        assert removed or cut.died
        for group in groups:
            assert members(node, group) == ({alice} if removed else {alice, bob})
            assert happened(node, group) == ["group_created"] + ["member_left"] * removed
        peers = [contact["user_id"] for contact in ask(node, alice, "contacts.list", state="all")["contacts"]]
        assert (bob in peers) == (not removed)
        if removed:
            assert_nothing_is_left(node, bob)


def assert_nothing_is_left(node: Node, user: str) -> None:
    """The next user with the same id finds nothing of the earlier one."""
    node.call("AddUser", pb.AddUserRequest(user_id=user, reuse_id=True))
    kept = select(node, "parley.db", f"SELECT * FROM sessions WHERE user = '{user}'")
    assert kept == [], "another's session"
    assert inbox(node, user) == []
    assert listed(node, user) == {}
    assert ask(node, user, "contacts.list", state="all")["contacts"] == []


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("method", ["messages.edit", "messages.recall"])
def test_amending(node: DyingNode, method: str, moment: str) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    content = {"content": "new"} if method == "messages.edit" else {}
    for cut in cuts(node, moment, least=1):
        sent = ask(node, alice, "messages.send", user_id=bob, content="old")
        with Caller(node, alice) as a, cut:
            a.rpc(method, id=sent["id"], **content)
        target, *rest = [entry for entry in node.history(private(alice, bob)) if entry["seq"] >= sent["seq"]]
        assert [entry["target_id"] for entry in rest] in ([], [sent["id"]])
        assert target["content"] == (content.get("content") if rest else "old")
        for user in (alice, bob):
            assert [entry["seq"] for entry in inbox(node, user)][-1] == sent["seq"] + len(rest)
        assert rest or cut.died


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_first_message_of_a_conversation(node: DyingNode, moment: str) -> None:
    alice = node.user("alice")
    for cut in cuts(node, moment, least=1):
        bob = node.user("bob")
        with Caller(node, alice) as a, cut:
            a.rpc("messages.send", user_id=bob, content="hello")
        stored = [entry["content"] for entry in inbox(node, bob)]
        assert stored == ["hello"] or (cut.died and stored == [])
        assert [entry["content"] for entry in inbox(node, alice) if entry["to_user_id"] == bob] == stored
        for user in (alice, bob):
            assert (private(alice, bob) in listed(node, user)) == bool(stored)


def test_dying_again_while_it_is_repaired(node: DyingNode) -> None:
    alice, bob = node.user("alice"), node.user("bob")
    before = node.pid()
    # With the group made; with the entry in the log; with the notice dropped.
    node.doom.write_text("after 1\n" * 3)
    with pytest.raises(grpc.RpcError):
        node.group(alice, bob, name="repaired")
    node.comes_back(before)
    assert not node.doom.exists()
    assert members(node, "repaired") == {alice, bob}
    assert happened(node, "repaired") == ["group_created"]


_MAKES = {
    "token_keys.json": "from plugins.auth.tokens import Tokens; Tokens(folder / 'token_keys.json')",
    "admin.token": "from server.data_dir import admin_token; admin_token(folder)",
}


@pytest.mark.parametrize("name", _MAKES)
def test_a_credential_that_cannot_be_written_is_made_at_the_next_start(tmp_path: Path, name: str) -> None:
    def make(max_bytes: int) -> int:
        limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({max_bytes}, {max_bytes}))"
        script = (
            f"import pathlib, resource; folder = pathlib.Path({str(tmp_path)!r}); {limit}; {_MAKES[name]}"
        )
        arguments = [sys.executable, "-c", script]
        return subprocess.run(arguments, cwd=ROOT, capture_output=True, check=False).returncode

    assert make(max_bytes=10) == 1
    assert not (tmp_path / name).exists()
    assert make(max_bytes=10_000) == 0
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / name).stat().st_size > 10
