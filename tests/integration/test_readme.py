"""The README's commands work as they are printed."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.node import ROOT, Node, wait_for

SECONDS = 20.0
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language, or of none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [block for its_language, block in found if its_language == language]


def commands(program: str) -> list[str]:
    """The command lines of a program, in the order they are printed."""
    return [line for block in blocks("") for line in block.splitlines() if line.startswith(program)]


class Terminals:
    """Shells in the README's directory, on a node that has other ports than the README says:
    imctl finds them in the data directory, Mosquitto's programs in their configuration files."""

    def __init__(self, node: Node, directory: Path) -> None:
        self._node = node
        self._directory = directory
        (directory / ".venv").symlink_to(sys.prefix)
        (directory / "data").symlink_to(node.data_dir)
        (directory / "settings").mkdir()
        for program in ("mosquitto_pub", "mosquitto_sub"):
            (directory / "settings" / program).write_text(f"-p {node.port}\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("IM_")}
        self._environment = kept | {"XDG_CONFIG_HOME": str(directory / "settings")}
        self._running: list[subprocess.Popen[str]] = []

    def run(self, command: str) -> str:
        """Run a command that must succeed; returns what it prints."""
        result = subprocess.run(
            ["bash", "-c", command],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, ""), command
        return result.stdout

    def listen(self, command: str) -> subprocess.Popen[str]:
        """Start mosquitto_sub; returns when it is subscribed."""
        before = self._node.stats()["subscriptions"]
        process = subprocess.Popen(
            ["stdbuf", "-oL", "bash", "-c", f"exec {command}"],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        wait_for(lambda: self._node.stats()["subscriptions"] > before, command, SECONDS)
        return process

    def close(self) -> None:
        for process in self._running:
            with process:  # closes its pipe, and waits
                process.kill()


@pytest.fixture
def terminals(make_node: Callable[..., Node], tmp_path: Path) -> Iterator[Terminals]:
    directory = tmp_path / "parley"
    directory.mkdir()
    terminals = Terminals(make_node().start(), directory)
    yield terminals
    terminals.close()


def read(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next message that mosquitto_sub prints; the test's own timeout ends a vain wait."""
    return json.loads(process.stdout.readline())


@pytest.mark.timeout(60)
def test_two_users_and_a_group_chat(terminals: Terminals) -> None:
    users, groups = commands(".venv/bin/imctl user"), commands(".venv/bin/imctl group")
    histories = commands(".venv/bin/imctl history")
    first_listen, leave, come_back = commands("mosquitto_sub")
    hello, to_all, while_away = commands("mosquitto_pub")
    everything = [*users, *groups, *histories, first_listen, leave, come_back, hello, to_all, while_away]
    shown = [line for block in blocks("") for line in block.splitlines() if not line.startswith("make ")]
    assert sorted(everything) == sorted(shown)  # or this test knows less than the README

    for command in users:
        terminals.run(command)
    bob = terminals.listen(first_listen)
    assert terminals.run(hello) == ""
    printed = [json.loads(block) for block in blocks("json") if '"hello"' in block]
    message = read(bob)
    assert [message | {"id": "", "created_at": 0}] == [each | {"id": "", "created_at": 0} for each in printed]
    assert list(message) == list(printed[0])

    for command in groups:
        terminals.run(command)
    assert read(bob)["content"]["event"] == "group_created"
    terminals.run(to_all)
    message = read(bob)
    assert (message["group_id"], message["content"]) == ("team", "hello everyone")
    private, group = (terminals.run(command) for command in histories)
    assert "alice" in private
    assert re.search(r"\bhello\b", private)
    assert "hello everyone" in group

    phone = terminals.listen(leave)
    phone.send_signal(signal.SIGINT)  # Ctrl-C
    assert phone.communicate(timeout=SECONDS)[0] == ""
    terminals.run(while_away)
    assert read(bob)["content"] == "while you were away"
    assert read(terminals.listen(come_back))["content"] == "while you were away"


def test_make_run_starts_a_node_the_way_the_tests_do() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "make run" in README
    assert re.search(r"^run:.*\n\t.*imctl serve", makefile, re.MULTILINE)
    for port in re.findall(r"127\.0\.0\.1:(\d+)/mqtt", README):
        assert f"bind: 127.0.0.1:{port}" in (ROOT / "config" / "broker.yaml").read_text()


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
