"""A store that is not the one it was: one clear line, and no start until it is accepted."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration import raw
from tests.integration.im import Device
from tests.integration.node import DEADLINE, ROOT, Node, password
from tests.integration.raw import RawClient

PUBACK = 4
FILES = ("parley.db", "parley.db-wal", "parley.db-shm")


def say(node: Node, sender: str, to: str, text: str) -> None:
    with RawClient(node.port) as client:
        client.login("phone", sender, password(sender))
        client.send(raw.publish(f"users/{to}/inbox", text.encode(), 1, 1))
        client.expect(PUBACK)


def refused(node: Node) -> str:
    """Try to start; returns the one line that says why not."""
    done = subprocess.run(
        node.command(), check=False, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 1, done
    assert done.stderr.startswith("imctl serve: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def remove(node: Node) -> None:
    for name in FILES:
        (node.data_dir / name).unlink(missing_ok=True)


def empty(node: Node) -> None:
    remove(node)
    (node.data_dir / "parley.db").touch()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A node with a message of `ann` to `ben` that has stopped."""
    node = make_node().start()
    node.names = ann, ben = node.user("ann"), node.user("ben")  # type: ignore[attr-defined]
    say(node, ann, ben, "before")
    node.stop()
    return node


def names(node: Node) -> tuple[str, str]:
    return node.names  # type: ignore[attr-defined, no-any-return]


def test_members_read_on_in_a_new_store(node: Node) -> None:
    """Where they may begin is kept in the directory, and is beyond the end of a log that begins anew."""
    node.start()
    ann, ben = names(node)
    group = node.group(ann)
    with Device(node, ann) as owner:
        for n in range(5):
            owner.post(group, f"{n}")
        owner.rpc("groups.add", group_id=group, user_ids=[ben])
    node.stop()
    remove(node)
    node.accept_new_store = True
    node.start()
    with Device(node, ann) as owner, Device(node, ben) as member:
        owner.post(group, "after")
        member.until(lambda: [entry["content"] for entry in member.group(group)] == ["after"], "the message")
        history = member.rpc("messages.history", conversation_id=f"g:{group}")["messages"]
        assert [entry["content"] for entry in history] == ["after"]


@pytest.mark.parametrize("lose", [remove, empty])
def test_a_message_store_that_is_gone(node: Node, lose: Callable[[Node], None]) -> None:
    ann, ben = names(node)
    lose(node)
    for _ in range(2):  # what the first attempt left is no better
        assert "the message store (new or emptied) is not what" in refused(node)
    node.accept_new_store = True
    node.start()
    say(node, ann, ben, "after")
    node.stop()
    node.accept_new_store = False
    node.start()
    conversation = ":".join(["p", *sorted((ann, ben))])
    assert [entry["content"] for entry in node.history(conversation)] == ["after"]
    assert json.loads((node.data_dir / "store.json").read_bytes())["generation"] == 2


def test_a_directory_that_is_gone(node: Node) -> None:
    for file in node.data_dir.glob("directory.db*"):
        file.unlink()
    assert "the directory (new or emptied) is not what" in refused(node)


def test_the_store_of_another_node(node: Node, make_node: Callable[..., Node]) -> None:
    other = make_node().start()
    other.stop()
    remove(node)
    for name in FILES:
        if (other.data_dir / name).exists():
            shutil.copy(other.data_dir / name, node.data_dir / name)
    assert "the message store (store " in refused(node)


def test_a_data_directory_of_before_is_recognised_from_then_on(node: Node) -> None:
    (node.data_dir / "store.json").unlink()
    for name in ("parley.db", "directory.db"):
        connection = sqlite3.connect(node.data_dir / name)
        with connection:
            connection.execute("DELETE FROM store_identity")
        connection.close()
    node.start()
    node.stop()
    empty(node)
    assert "new or emptied" in refused(node)


def test_a_node_killed_at_its_first_start_starts_again(
    tmp_path: Path, make_node: Callable[..., Node]
) -> None:
    node = make_node()
    node.data_dir.mkdir(mode=0o700)
    (node.data_dir / "store.json").write_text(json.dumps({"id": "a" * 32, "generation": 1, "written": False}))
    node.start()
    node.stop()
    assert json.loads((node.data_dir / "store.json").read_bytes()) == {
        "id": "a" * 32,
        "generation": 1,
        "written": True,
    }
