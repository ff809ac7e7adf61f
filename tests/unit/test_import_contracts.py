"""The import contracts name every module of the broker: a new one is not left out."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
MODULES = {
    f"broker.{entry.stem}"
    for entry in (ROOT / "broker").iterdir()
    if entry.suffix == ".py" or (entry / "__init__.py").exists()
} - {"broker.__init__"}


def contract(words: str) -> dict[str, list[str]]:
    (found,) = [each for each in CONTRACTS if words in each["name"]]
    return dict(found)


def test_bridge_and_plugins_see_ports_and_domain_only() -> None:
    seen = MODULES - set(contract("bridge and plugins see")["forbidden_modules"])
    assert seen == {"broker.ports", "broker.domain"}


def test_one_edge_to_amqtt() -> None:
    free = MODULES - set(contract("one edge to amqtt")["source_modules"])
    assert free == {"broker.amqtt_edge"}


def test_a_node_alone_loads_no_driver_of_a_server() -> None:
    """They take memory and time at the start."""
    loaded = "import sys, server.app, plugins.auth, plugins.persistence.sqlite; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, cwd=ROOT
    )
    drivers = {"redis", "hiredis", "motor", "pymongo", "aiomysql", "asyncpg"}
    assert "server.cluster" in done.stdout.split()
    assert not drivers.intersection(done.stdout.split())
