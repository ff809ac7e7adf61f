"""Which ids a node gives to users and groups, and who may read its files."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import grpc
import httpx
import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.im import Device
from tests.integration.node import Node, password
from tests.integration.raw import RawClient
from tests.integration.test_imctl import Operator

MakeNode = Callable[..., Node]
DUMPS = Path(__file__).with_name("data_0_1_0")


@pytest.fixture(scope="module")
def open_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node where users may register themselves."""
    made = Node(tmp_path_factory.mktemp("open"), ["http.registration=true"]).start()
    yield made
    made.stop()


def add(node: Node, user: str, *, reuse: bool = False) -> None:
    node.call("AddUser", pb.AddUserRequest(user_id=user, password=password(user), reuse_id=reuse))


def refused(node: Node, user: str, *, reuse: bool = False) -> str:
    """What the refusal to add an account says."""
    with pytest.raises(grpc.RpcError) as raised:
        add(node, user, reuse=reuse)
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
    return str(raised.value.details())


def registers(node: Node, user: str) -> int:
    body = {"user_id": user, "password": password(user)}
    return httpx.post(f"{node.http}/api/register", json=body).status_code


def remove(node: Node, user: str) -> None:
    node.call("RemoveUser", pb.RemoveUserRequest(user_id=user))


def directory(node: Node) -> sqlite3.Connection:
    return sqlite3.connect(node.data_dir / "directory.db")


# --- users -----------------------------------------------------------------------------------


def test_user_ids_that_differ_in_case_only(open_node: Node) -> None:
    alice = open_node.user("alice")
    imctl = Operator(open_node)
    for other in (alice.upper(), alice.title()):
        for reuse in (False, True):
            assert "differs in case only" in refused(open_node, other, reuse=reuse)
        assert registers(open_node, other) == 409
        assert "differs in case only" in imctl.refused("user", "add", other, "--no-password", "--reuse-id")
    assert registers(open_node, "Registered") == 201
    assert registers(open_node, "registered") == 409
    assert "differs in case only" in refused(open_node, "REGISTERED")


@pytest.mark.parametrize("name", ["system", "System", "SYSTEM"])
def test_the_id_of_the_server_in_any_case(open_node: Node, name: str) -> None:
    assert "reserved" in refused(open_node, name, reuse=True)
    assert registers(open_node, name) == 400


@pytest.mark.parametrize("wrote", [False, True])
def test_the_id_of_a_removed_account(open_node: Node, wrote: bool) -> None:
    gone = open_node.user("gone")
    imctl = Operator(open_node)
    if wrote:
        with Device(open_node, gone) as device:
            device.say(gone, "a note")
    remove(open_node, gone)
    for name in (gone, gone.upper()):
        assert "an earlier account" in refused(open_node, name)
        assert registers(open_node, name) == 409
        assert "an earlier account" in imctl.refused("user", "add", name, "--no-password")
    imctl.do("user", "add", gone, "--password", password(gone), "--reuse-id")
    with Device(open_node, gone) as device:
        assert device.sync() == {}
    assert "exists already" in refused(open_node, gone, reuse=True)


def test_the_id_of_an_account_that_an_earlier_version_has_removed(make_node: MakeNode) -> None:
    """Its directory has forgotten it, but its inbox is there."""
    node = make_node().start()
    alice, gone = node.user("alice"), node.user("gone")
    with Device(node, alice) as device:
        device.say(gone, "hello")
    remove(node, gone)
    node.stop()
    with closing(directory(node)) as database, database:
        database.execute("DELETE FROM used_ids WHERE id = ?", (gone,))
    node.start()
    assert "an earlier account" in refused(node, gone)
    add(node, gone, reuse=True)


# --- groups ----------------------------------------------------------------------------------


def test_group_ids_that_differ_in_case_only(open_node: Node) -> None:
    alice, bob = open_node.user("alice"), open_node.user("bob")
    group = open_node.group(alice, bob)
    with Device(open_node, alice) as a, Device(open_node, bob) as b:
        for dismissed in (False, True):
            for other in (group.upper(), group.title()):
                for device in (a, b):
                    assert device.refused("groups.create", group_id=other, name="x") == "exists"
                with pytest.raises(grpc.RpcError) as raised:
                    open_node.group(alice, name=other)
                assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
            assert b.refused("groups.create", group_id=group, name="x") == "exists"
            if not dismissed:
                a.rpc("groups.dismiss", group_id=group)
        # Its owner may use the id again, exactly as it was.
        a.rpc("groups.create", group_id=group, name="again")
        assert a.refused("groups.create", group_id=group.upper(), name="x") == "exists"


def test_a_dismissed_group_of_a_removed_owner(open_node: Node) -> None:
    """Whoever gets the owner's id does not get the group's id with it."""
    alice, bob = open_node.user("alice"), open_node.user("bob")
    group = open_node.group(alice, bob)
    with Device(open_node, bob) as b:
        b.post(group, "hello")
        open_node.call("DismissGroup", pb.DismissGroupRequest(group_id=group))
        remove(open_node, alice)
        add(open_node, alice, reuse=True)
        with Device(open_node, alice) as a:
            assert a.refused("groups.create", group_id=group, name="mine") == "exists"
        page = b.rpc("messages.history", conversation_id=f"g:{group}")["messages"]
        assert "hello" in [entry["content"] for entry in page]
    open_node.group(alice, name=group)  # an administrator says so


def test_what_an_earlier_account_has_sent_is_not_the_new_ones(open_node: Node) -> None:
    """Whoever has its id now is a member like the others, and learns nothing by its `client_msg_id`s."""
    alice, bob, owner = (open_node.user(name) for name in ("alice", "bob", "owner"))
    group = open_node.group(owner, alice, bob)
    said = {"content": "hello", "client_msg_id": "c-1"}
    changes: dict[str, dict[str, str]] = {"messages.edit": {"content": "mine"}, "messages.recall": {}}
    with Device(open_node, alice) as a, Device(open_node, bob) as b:
        first = a.rpc("messages.send", group_id=group, **said)
        a.rpc("messages.send", user_id=bob, **said)
        b.rpc("messages.read", conversation_id=f"g:{group}", seq=first["seq"])
        remove(open_node, alice)
        add(open_node, alice, reuse=True)
        with Device(open_node, owner) as o:
            o.rpc("groups.update", group_id=group, history_visible=True)
            o.rpc("groups.add", group_id=group, user_ids=[alice])
        with Device(open_node, alice, "new") as new:
            assert first["id"] in [each["id"] for each in new.sync()[f"groups/{group}"]], "to be read by all"
            for method, rest in changes.items():
                assert b.refused(method, id=first["id"], **rest) == "not_authorized"
                assert new.refused(method, id=first["id"], **rest) == "not_authorized", method
            assert new.refused("messages.readers", id=first["id"]) == "not_authorized"
            counts = new.rpc("messages.read_counts", conversation_id=f"g:{group}", ids=[first["id"]])
            assert counts == {"counts": {}, "missing": [first["id"]]}
            assert new.conversation(f"g:{group}")["unread"] == 1
            # The same `client_msg_id`, with the same content and with other content.
            for topic, where in ((f"users/{bob}/inbox", b.inbox), (f"groups/{group}", b.group(group))):
                before = len(where)
                new.publish(topic, said if "inbox" in topic else said | {"content": "other"})
                assert not new.told("error"), topic
                b.until(lambda: len(b.log(topic)) == before + 1, topic)  # noqa: B023
            again = new.rpc("messages.send", user_id=bob, **said)
            mine = new.rpc("messages.send", group_id=group, content="my own")
            assert again["id"] == b.inbox[-1]["id"]
            new.rpc("messages.edit", id=mine["id"], content="my own, edited")
            assert new.rpc("messages.readers", id=mine["id"])["readers"] == []
            new.rpc("messages.recall", id=mine["id"])


# --- data of the tree before -----------------------------------------------------------------

# A second account and group, copied from those of the dump.
_MORE = """
CREATE TEMP TABLE u AS SELECT * FROM users WHERE user_id = 'alice';
CREATE TEMP TABLE g AS SELECT * FROM groups WHERE group_id = 'team';
CREATE TEMP TABLE m AS SELECT * FROM memberships WHERE group_id = 'team';
UPDATE u SET user_id = 'ALICE';
UPDATE g SET group_id = 'Team';
UPDATE m SET group_id = 'Team';
INSERT INTO users SELECT * FROM u;
INSERT INTO groups SELECT * FROM g;
INSERT INTO memberships SELECT * FROM m;
"""


def test_ids_that_differ_in_case_only_stay_and_are_reported(make_node: MakeNode) -> None:
    node = make_node()
    node.data_dir.mkdir(mode=0o755)
    for dump in DUMPS.glob("*.sql"):
        more = _MORE if dump.stem == "directory" else ""
        with closing(sqlite3.connect(node.data_dir / dump.with_suffix(".db").name)) as database:
            database.executescript(dump.read_text(encoding="utf-8") + more)
    for _ in range(2):
        node.start()
        assert "ids that differ from another in case only" in node.log()
        assert "user alice (as ALICE)" in node.log()
        assert "group team (as Team)" in node.log()
        for user in ("alice", "ALICE"):
            with RawClient(node.port) as client:
                client.login("d", user, node.token(user))
            assert "exists" in refused(node, user, reuse=True)
        assert "differs in case only" in refused(node, "Alice", reuse=True)
        node.call("SendMessage", pb.SendMessageRequest(sender="alice", topic="groups/Team", payload=b"hi"))
        assert node.history("g:Team")[-1]["content"] == "hi"
        node.stop()
        node.log_file.unlink()
    node.start()
    remove(node, "ALICE")
    assert "differs in case only" in refused(node, "ALICE", reuse=True)
    node.stop()
    node.log_file.unlink()
    node.start()
    assert "user alice" not in node.log()


# --- files -----------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, str]:
    return {file.name: oct(file.stat().st_mode & 0o777) for file in folder.iterdir() if file.is_file()}


def test_data_files_are_for_their_owner_only(make_node: MakeNode) -> None:
    node = make_node()
    node.data_dir.mkdir()
    node.data_dir.chmod(0o777)
    before = os.umask(0)
    try:
        node.start()
        alice = node.user("alice")
        with Device(node, alice) as device:
            device.say(alice, "a note")
        made = modes(node.data_dir)
        assert {"directory.db", "parley.db", "parley.db-wal", "admin.token", "lock"} <= made.keys()
        assert set(made.values()) == {"0o600"}, made
        node.kill()
        for file in node.data_dir.iterdir():  # as an earlier version has left them
            file.chmod(0o644)
        node.start()
        assert set(modes(node.data_dir).values()) == {"0o600"}
    finally:
        os.umask(before)
