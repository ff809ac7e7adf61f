"""The commands of docs/http.md work as they are printed."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.node import ROOT, Node

PAGE = (ROOT / "docs" / "http.md").read_text()
COMMANDS = re.findall(r"^curl .*$", PAGE, re.MULTILINE)
PRINTED = [json.loads(line) for line in re.findall(r"^\{.*\}$", PAGE, re.MULTILINE)]


def run(command: str, node: Node, variables: dict[str, str]) -> dict[str, str]:
    """What a command prints."""
    result = subprocess.run(
        ["bash", "-c", command.replace("http://127.0.0.1:8080", node.http) + " --silent --fail"],
        capture_output=True,
        env=os.environ | variables,
        timeout=20,
        check=True,
    )
    return dict(json.loads(result.stdout or b"{}"))


def hidden(pair: dict[str, str]) -> dict[str, str]:
    """A pair with its tokens cut short, as they are printed."""
    return {key: f"{value[:8]}…" if key.endswith("_token") else value for key, value in pair.items()}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_print_what_the_page_says(make_node: Callable[..., Node]) -> None:
    node = make_node("http.registration=true").start()
    node.call("AddUser", pb.AddUserRequest(user_id="alice", password="wonderland", role="user"))
    login, refresh, logout, register, health, ready = COMMANDS
    pair = run(login, node, {})
    assert hidden(pair) == PRINTED[0]
    pair = run(refresh, node, {"REFRESH": pair["refresh_token"]})
    assert hidden(pair) == PRINTED[0]
    assert run(logout, node, {"ACCESS": pair["access_token"], "REFRESH": pair["refresh_token"]}) == {}
    assert run(register, node, {}) == PRINTED[1]
    assert [run(health, node, {}), run(ready, node, {})] == PRINTED[2:4]
    answer = subprocess.run(
        ["bash", "-c", login.replace("wonderland", "x").replace("http://127.0.0.1:8080", node.http)],
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert json.loads(answer.stdout) == PRINTED[4]
