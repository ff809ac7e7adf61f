"""`imctl verify`, on a node that runs and on the files of one that does not."""

import json
import os
import pty
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from bridge.grpc_api import im_admin_pb2 as pb
from tests.cli.imctl import COMMAND, ENVIRONMENT, Result, expect, run
from tests.integration.im import Device
from tests.integration.node import DEADLINE, ROOT, Node

SQLITE = "plugins.persistence.sqlite.SqlitePersistencePlugin"
MEMORY = "tests.outside.memory_store.MemoryPersistencePlugin"


def verify(node: Node, *arguments: str) -> Result:
    return run("--data-dir", str(node.data_dir), "verify", *arguments)


def found(node: Node) -> list[dict[str, str]]:
    """The findings, which must agree with the exit status."""
    result = verify(node, "--json")
    document = json.loads(result.stdout)
    assert result.stderr == ""
    assert (result.returncode, document["sound"]) == ((1, False) if document["findings"] else (0, True))
    assert document["checked"] > 0
    return list(document["findings"])


def change(file: Path, sql: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute(sql).rowcount > 0
        connection.commit()


def lose(node: Node, group: str) -> None:
    """Delete the message with seq 4 of a group."""
    log = f"(SELECT id FROM names WHERE name = 'g:{group}')"
    change(node.data_dir / "parley.db", f"DELETE FROM messages WHERE key = ({log} << 32) + 4")


def talk(node: Node) -> tuple[str, str, str]:
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    with Device(node, bob) as phone:
        for number in range(5):
            phone.say(alice, f"private {number}")
            phone.post(group, f"group {number}")
        phone.settle()
        phone.close()
    return alice, bob, group


def test_a_node_that_runs_and_one_that_does_not(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    alice, bob, group = talk(node)
    result = verify(node)
    assert (result.returncode, result.stderr) == (0, "")
    assert "rows checked, nothing wrong" in result.stdout
    assert found(node) == []
    # Under the feet of the running node: a message, a cursor and an account go wrong.
    store, directory = node.data_dir / "parley.db", node.data_dir / "directory.db"
    lose(node, group)
    change(store, "UPDATE cursors SET offset = 99 WHERE log LIKE 'users/%/inbox'")
    change(directory, f"UPDATE memberships SET joined_seq = 77 WHERE user_id = '{bob}'")
    change(directory, f"UPDATE users SET inbox_floor = 66 WHERE user_id = '{alice}'")
    for state in ("runs", "is stopped", "was killed"):
        kinds = {(each["kind"], each["where"]) for each in found(node)}
        assert ("gap", f"g:{group}") in kinds, state
        assert ("cursor", f"session {bob}-phone of {bob}") in kinds
        assert ("cursor", f"group {group}") in kinds
        assert ("cursor", f"account {alice}") in kinds
        lines = verify(node)
        assert lines.returncode == 1
        assert f"gap: g:{group}: 4 missing\n" in lines.stdout
        assert lines.stdout.splitlines()[-1].endswith(" 1 gap")
        if state == "runs":
            node.stop()
        elif state == "is stopped":
            node.start()
            node.kill()


def test_damaged_files(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    talk(node)
    node.stop()
    directory = node.data_dir / "directory.db"
    with closing(sqlite3.connect(directory)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'contacts'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with directory.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    assert any(each["kind"] == "damaged" and each["where"] == "directory" for each in found(node))


def test_what_cannot_be_checked(make_node: Callable[..., Node], tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "broker.yaml").read_text())
    config["plugins"][MEMORY] = config["plugins"].pop(SQLITE)
    file = tmp_path / "broker.yaml"
    file.write_text(yaml.safe_dump(config))
    node = make_node(config=file).start()
    for arguments in ((), ("--json",)):
        result = verify(node, *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == "imctl: the store of this node offers no checks\n"
    with pytest.raises(grpc.RpcError) as raised:
        list(node.admin.Verify(pb.VerifyRequest(), metadata=node.metadata, timeout=DEADLINE))
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    for folder in (tmp_path / "none", "/dev/null/x"):
        result = run("--data-dir", str(folder), "verify")
        assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert not (tmp_path / "none").exists()
    assert verify(node, "--config", "/none").returncode == 2


def test_only_administrators_verify(node: Node) -> None:
    token = node.token(node.user("alice"))
    with pytest.raises(grpc.RpcError) as raised:
        list(node.admin.Verify(pb.VerifyRequest(), metadata=(("authorization", f"Bearer {token}"),)))
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def test_the_bar_on_a_terminal(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    _, _, group = talk(node)
    lose(node, group)
    terminal, inside = pty.openpty()
    with subprocess.Popen(
        (*COMMAND, "--data-dir", str(node.data_dir), "verify"),
        stdin=inside,
        stdout=inside,
        stderr=inside,
        cwd=ROOT,
        env=ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "80"},
    ) as process:
        os.close(inside)
        seen = expect(terminal, "found: ")
        assert "checking" in seen
        assert f"gap: g:{group}: 4 missing" in seen
        assert process.wait(30) == 1
    os.close(terminal)
