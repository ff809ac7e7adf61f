"""`imctl backup` of a node that runs, and `imctl restore`."""

import json
import shutil
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.grpc_api import im_admin_pb2 as pb
from tests.cli.imctl import Result, run
from tests.integration.im import Device, private
from tests.integration.node import ROOT, Node, password
from tests.integration.raw import RawClient
from tests.integration.test_serve import serve
from tests.integration.test_verify import MEMORY, SQLITE

KEPT = {
    "admin.token",
    "backup.json",
    "directory.db",
    "node.json",
    "parley.db",
    "store.json",
    "token_keys.json",
}


def imctl(node: Node, *arguments: str) -> Result:
    return run("--data-dir", str(node.data_dir), *arguments)


def back_up(node: Node, target: Path) -> Path:
    result = imctl(node, "backup", str(target))
    assert (result.returncode, result.stderr) == (0, "")
    assert f"{target}: 7 files" in result.stdout
    return target


def restore(node: Node, backup: Path) -> str:
    result = imctl(node, "restore", str(backup))
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(result: Result) -> str:
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


def generation(node: Node) -> int:
    return int(json.loads((node.data_dir / "store.json").read_bytes())["generation"])


def texts(node: Node, conversation: str) -> list[Any]:
    return [entry["content"] for entry in node.history(conversation) if entry["type"] == "text"]


@pytest.mark.parametrize("name", ["backup", "backup.tar", "backup.tar.gz"])
def test_a_backup_of_a_busy_node_elsewhere(make_node: Callable[..., Node], tmp_path: Path, name: str) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    token = node.token(alice)
    stop = threading.Event()
    sent: list[str] = []

    def chat() -> None:
        with Device(node, alice, clean=True) as phone:
            while not stop.is_set():
                phone.say(bob, f"text {len(sent)}")
                phone.post(group, f"text {len(sent)}")
                sent.append(f"text {len(sent)}")

    talking = threading.Thread(target=chat)
    talking.start()
    while len(sent) < 20:
        stop.wait(0.01)
    before = len(sent)
    target = back_up(node, tmp_path / name)
    after = len(sent)
    stop.set()
    talking.join()
    node.stop()
    assert not (node.data_dir / "backup.tmp").exists()
    assert target.stat().st_mode & 0o777 == (0o700 if target.is_dir() else 0o600)
    if target.is_dir():
        assert {file.name for file in target.iterdir()} == KEPT
        assert {file.stat().st_mode & 0o777 for file in target.iterdir()} == {0o600}
    else:
        with tarfile.open(target) as tar:
            assert {member.name for member in tar} == KEPT
            assert {member.mode for member in tar} == {0o600}
    other = make_node()
    said = restore(other, target)
    assert "what was there before" not in said
    other.start()
    for conversation in (private(alice, bob), f"g:{group}"):
        stored = texts(other, conversation)
        assert stored == sent[: len(stored)]
        assert before <= len(stored) <= after
    assert generation(other) > generation(node)
    # Accounts, passwords, tokens and the administrator's credential are those of the backup.
    assert (other.data_dir / "admin.token").read_bytes() == (node.data_dir / "admin.token").read_bytes()
    with Device(other, bob, clean=True) as phone:
        phone.say(alice, "there")
    client = RawClient(other.port)
    client.login("with-token", alice, token)
    client.socket.close()
    result = imctl(other, "verify")
    assert (result.returncode, result.stderr) == (0, "")


def test_what_a_session_is_told(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """Bob's phone has read entries that the restored store does not have. It is told so, and goes on from the
    head. It gets nothing twice, and misses nothing that is there."""
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    phone = Device(node, bob)
    sender = Device(node, alice, clean=True)
    for number in range(3):
        sender.say(bob, f"kept {number}")
        sender.post(group, f"kept {number}")
    assert len(phone.inbox) == 3
    backup = back_up(node, tmp_path / "backup")
    for number in range(5):
        sender.say(bob, f"lost {number}")
        sender.post(group, f"lost {number}")
    assert len(phone.inbox) == 8
    head = max(phone.entries[f"groups/{group}"])
    phone.close()
    sender.vanish()
    node.stop()
    said = restore(node, backup)
    assert "what was there before is in " in said
    node.start()
    with Device(node, alice, clean=True) as sender:
        # The head grows past the old cursors before the phone comes back.
        for number in range(9):
            sender.say(bob, f"new {number}")
            sender.post(group, f"new {number}")
    known = len(phone.entries[f"users/{bob}/inbox"])
    phone.entries.clear()
    client = RawClient(node.port)
    assert client.login(f"{bob}-phone", bob, password(bob), clean=False) is False
    phone.client = client
    gaps = {event["topic"]: event for event in phone.told("gap")}
    inbox, team = f"users/{bob}/inbox", f"groups/{group}"
    assert (gaps[inbox]["from"], gaps[inbox]["to"]) == (4, known)
    assert (gaps[team]["from"], gaps[team]["to"]) == (head - 4, head)
    phone.until(lambda: len(phone.log(inbox)) == len(phone.log(team)) == 9, "the new entries")
    assert [entry["content"] for entry in phone.log(inbox)] == [f"new {number}" for number in range(9)]
    assert [entry["offset"] for entry in phone.log(team)] == list(range(head - 4, head + 5))
    phone.close()
    # The next time it is a session as any other.
    client = RawClient(node.port)
    assert client.login(f"{bob}-phone", bob, password(bob), clean=False) is True
    client.socket.close()
    assert imctl(node, "verify").returncode == 0


def test_what_is_refused_changes_nothing(make_node: Callable[..., Node], tmp_path: Path) -> None:
    node = make_node().start()
    alice = node.user("alice")
    backup = back_up(node, tmp_path / "backup")
    archive = back_up(node, tmp_path / "backup.tgz")
    assert "exists already" in refused(imctl(node, "backup", str(backup)))
    assert "exists already" in refused(imctl(node, "backup", str(archive)))
    assert "no such file" in refused(imctl(node, "backup", str(tmp_path / "none" / "b"))).lower()
    assert "in use by another node" in refused(imctl(node, "restore", str(backup)))
    node.stop()
    assert "no node is running" in refused(imctl(node, "backup", str(tmp_path / "other")))
    before = {file.name: file.read_bytes() for file in node.data_dir.iterdir()}
    half = tmp_path / "half.tgz"
    half.write_bytes(archive.read_bytes()[:-5000])
    damaged, lacking = tmp_path / "damaged", tmp_path / "lacking"
    for copy in (damaged, lacking):
        shutil.copytree(backup, copy)
    with (damaged / "parley.db").open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    (lacking / "directory.db").unlink()
    for source, words in (
        (tmp_path / "nothing", "no such file"),
        (tmp_path, "has no backup.json"),
        (half, "no backup, or not whole"),
        (damaged, "parley.db is not what was backed up"),
        (lacking, "directory.db is missing"),
    ):
        assert words.lower() in refused(imctl(node, "restore", str(source))).lower()
    assert {file.name: file.read_bytes() for file in node.data_dir.iterdir()} == before
    nothing, unborn = tmp_path / "nothing", tmp_path / "unborn"
    said = refused(run("--data-dir", str(unborn), "restore", str(nothing)))
    assert f"there is no backup {nothing}: no such file or folder" in said
    assert not unborn.exists()
    node.start()
    assert node.call("GetUser", pb.GetUserRequest(user_id=alice)).user.user_id == alice


def test_a_restore_that_was_interrupted(make_node: Callable[..., Node], tmp_path: Path) -> None:
    node = make_node().start()
    alice = node.user("alice")
    backup = back_up(node, tmp_path / "backup")
    node.stop()
    # As if it was killed after the old files had gone aside.
    (node.data_dir / "restore.ready").mkdir()
    for name in ("parley.db", "directory.db", "store.json"):
        (node.data_dir / name).unlink()
    status, line = serve(ROOT / "config" / "broker.yaml", "--data-dir", str(node.data_dir))
    assert status == 1
    assert "run imctl restore again" in line
    assert "run imctl restore again" in imctl(node, "verify").stderr
    restore(node, backup)
    node.start()
    assert node.call("GetUser", pb.GetUserRequest(user_id=alice)).user.user_id == alice


def test_restored_twice_over_another_store_and_over_damage(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    """Each restore has a generation of its own, and the backup is as it was."""
    node, other = make_node().start(), make_node().start()
    alice = node.user("alice")
    other.user("bob")
    backup = back_up(node, tmp_path / "backup")
    node.stop()
    other.stop()
    restore(node, backup)
    (node.data_dir / "parley.db").write_bytes(b"not a database" * 1000)
    (node.data_dir / "store.json").write_bytes(b"{")
    first = restore(node, backup)
    restore(other, backup)
    assert first.startswith("restored the backup of ")
    assert len({generation(node), generation(other)}) == 2
    for each in (node, other):
        each.start()
        assert [user.user_id for user in each.call("ListUsers", pb.PageRequest()).users] == [alice]
        each.stop()


def test_a_store_that_cannot_be_copied(make_node: Callable[..., Node], tmp_path: Path) -> None:
    config = yaml.safe_load((ROOT / "config" / "broker.yaml").read_text())
    config["plugins"][MEMORY] = config["plugins"].pop(SQLITE)
    file = tmp_path / "broker.yaml"
    file.write_text(yaml.safe_dump(config))
    node = make_node(config=file).start()
    assert "cannot be copied" in refused(imctl(node, "backup", str(tmp_path / "backup")))
    assert not list(tmp_path.glob("backup*"))


def test_a_wrong_configuration_names_its_source(make_node: Callable[..., Node], tmp_path: Path) -> None:
    """As `imctl serve` does, for whatever finds the fault."""
    node = make_node().start()
    backup = back_up(node, tmp_path / "backup")
    node.stop()
    good = (ROOT / "config/broker.yaml").read_text()
    bad = good.replace(f"{SQLITE}: {{}}", f"{SQLITE}: {{fsync: 1}}")
    config = tmp_path / "broker.yaml"
    before = {file.name: file.read_bytes() for file in node.data_dir.iterdir()}
    for command in (["verify"], ["restore", str(backup)]):
        for text, env, said in (
            (bad, {}, f"plugins.{SQLITE}.fsync: unknown key"),
            (good, {"IM_PLUGINS__NONE": "{}"}, "plugins.none: none doesn't look"),
            (good, {"IM_LIMITS__NO": "1"}, "limits.no: unknown key"),
        ):
            config.write_text(text)
            result = run("--data-dir", str(node.data_dir), *command, "--config", str(config), **env)
            lines = [number for number, line in enumerate(text.splitlines(), 1) if f"{SQLITE}:" in line]
            source = next(iter(env), f"{config}:{lines[-1]}")
            assert result.stderr.startswith(f"imctl: {source}: {said}"), (command, result.stderr)
            assert result.returncode in (1, 2)
    assert {file.name: file.read_bytes() for file in node.data_dir.iterdir()} == before
