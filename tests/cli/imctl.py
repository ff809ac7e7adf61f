"""Runs imctl in a process of its own, as users do."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.cli.fakes import FakeNode

Result = subprocess.CompletedProcess[str]

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("IM_")}
COMMAND = (sys.executable, "-m", "cli")


def run(*arguments: str, input: str = "", **environment: str) -> Result:
    """Run imctl. It must never print a traceback."""
    result = subprocess.run(
        (*COMMAND, *arguments),
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=False,
        input=input,
        env=ENVIRONMENT | environment,
    )
    assert "Traceback" not in result.stdout + result.stderr
    return result


def on(node: FakeNode, *arguments: str, input: str = "") -> Result:
    """Run imctl on a node's data directory."""
    return run("--data-dir", str(node.data_dir), *arguments, input=input)


def done(result: Result) -> str:
    """The output of a command that must succeed without a word on standard error."""
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(result: Result) -> str:
    """The one line of a command that must be refused."""
    assert (result.returncode, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("imctl: ")
    return lines[0].removeprefix("imctl: ")


def misused(result: Result) -> str:
    """The message of a command with wrong usage."""
    assert (result.returncode, result.stdout) == (2, "")
    return " ".join(result.stderr.replace("│", " ").split())


def wait(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, 10 s at most."""
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def expect(terminal: int, words: str) -> str:
    """Read from a pseudo-terminal until the text appears, 10 s at most."""
    seen = ""
    while words not in seen:
        assert select.select([terminal], [], [], 10)[0], f"{words!r} did not come, only {seen!r}"
        seen += os.read(terminal, 4096).decode()
    return seen
