"""What happens when imctl finds no node, or its own output goes nowhere."""

import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.fakes import FakeNode, running_node
from tests.cli.imctl import COMMAND, ENVIRONMENT, ROOT, done, expect, on, refused, run

# --- finding the node --------------------------------------------------------------------


def test_no_node(tmp_path: Path) -> None:
    folder = tmp_path / "no where"
    said = refused(run("--data-dir", str(folder), "user", "list"))
    assert said == (
        f"no node is running on data directory {folder} (start one with: imctl serve --data-dir '{folder}')"
    )


def test_a_node_that_has_gone(tmp_path: Path) -> None:
    with running_node(tmp_path) as node:
        done(on(node, "stats"))
    for command in (("stats",), ("tail", "bob")):
        assert refused(on(node, *command)).startswith(f"no node is running on data directory {tmp_path} (")


def test_somebody_else_has_the_port(node: FakeNode) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node.address = f"127.0.0.1:{silent.getsockname()[1]}"
        node.write_files()
        said = refused(run("--data-dir", str(node.data_dir), "--timeout", "0.5", "stats"))
    assert said == f"no answer from the node at {node.address} within 0.5 s"


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"grpc": null}', '{"grpc": 5}', "\0\xff"])
def test_node_file_that_says_nothing(node: FakeNode, content: str) -> None:
    node.node_file.write_text(content, encoding="latin-1")
    assert "does not say where" in refused(on(node, "stats"))


@pytest.mark.parametrize("content", ["", "two words", "line\nline", "é"])
def test_token_file_without_a_token(node: FakeNode, content: str) -> None:
    node.token_file.write_text(content)
    assert "does not hold a token" in refused(on(node, "stats"))


def test_wrong_token(node: FakeNode) -> None:
    node.token_file.write_text("another-token")
    for command in (("stats",), ("tail", "bob")):
        said = refused(on(node, *command))
        assert said == f"the node at {node.address} does not accept the token in {node.token_file}"


def test_token_file_that_cannot_be_read(node: FakeNode) -> None:
    node.token_file.unlink()
    node.token_file.mkdir()
    assert refused(on(node, "stats")) == f"cannot read {node.token_file}: Is a directory"


def test_a_node_elsewhere(shared_node: FakeNode, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    remote = ("--server", shared_node.address, "--token-file", str(token_file))
    assert f"cannot read {token_file}" in refused(run(*remote, "stats"))
    token_file.write_text(shared_node.token_file.read_text())
    done(run(*remote, "stats"))
    assert "--token-file" in refused(
        run("--server", shared_node.address, "--data-dir", str(tmp_path), "stats")
    )
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"127.0.0.1:{gone.getsockname()[1]}"
    assert (
        refused(run("--server", address, "--token-file", str(token_file), "stats"))
        == f"no node answers at {address}"
    )


@pytest.mark.parametrize("name", ["IM_DATA_DIR", "IM_STORAGE__DATA_DIR"])
def test_the_environment_names_the_data_directory(shared_node: FakeNode, name: str) -> None:
    done(run("stats", **{name: str(shared_node.data_dir)}))


def test_a_proxy_for_the_web_is_not_used(shared_node: FakeNode) -> None:
    done(run("--data-dir", str(shared_node.data_dir), "stats", http_proxy="http://127.0.0.1:9", no_proxy=""))


# --- the command itself ------------------------------------------------------------------


def test_version_and_help() -> None:
    assert done(run("--version")).startswith("imctl ")
    assert "history" in done(run("--help"))
    assert "--password-stdin" in done(run("user", "add", "--help"))


def test_help_loads_nothing_heavy() -> None:
    script = "import sys, cli.app; print(*{'grpc', 'rich', 'msgspec', 'asyncio'} & set(sys.modules))"
    command = (sys.executable, "-c", script)
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split() == []


def test_what_nobody_foresaw_stays_on_the_node(shared_node: FakeNode) -> None:
    assert refused(on(shared_node, "user", "show", "broken")) == "internal error"


def test_a_reader_that_stops_reading(shared_node: FakeNode) -> None:
    line = (
        f"{sys.executable} -m cli --data-dir {shared_node.data_dir} tail g:team --from-start -n 250 | head -1"
    )
    result = subprocess.run(
        ("bash", "-o", "pipefail", "-c", line),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ENVIRONMENT,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["content"] == "line 1"


def test_output_that_cannot_be_written(shared_node: FakeNode) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            (*COMMAND, "--data-dir", str(shared_node.data_dir), "user", "list"),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=ENVIRONMENT,
            check=False,
        )
    assert (result.returncode, result.stderr) == (
        1,
        "imctl: cannot write the output: No space left on device\n",
    )


def test_a_terminal_gets_no_control_characters_of_users(shared_node: FakeNode) -> None:
    leader, follower = pty.openpty()
    command = (*COMMAND, "--data-dir", str(shared_node.data_dir), "history", "p:alice:bob")
    with subprocess.Popen(command, stdout=follower, cwd=ROOT, env=ENVIRONMENT | {"TERM": "dumb"}) as process:
        os.close(follower)
        seen = expect(leader, "你好 alice")
    os.close(leader)
    assert process.returncode == 0
    assert "\x1b[2J" not in seen
    assert r"\x1b[2J" in seen
