"""Starting, refusing to start, and stopping."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.node import HOST, ROOT, Node, password
from tests.integration.raw import RawClient, connect

GOOD = (ROOT / "config" / "broker.yaml").read_text()
STORE = "  plugins.persistence.sqlite.SqlitePersistencePlugin: {}"


def serve(config: Path | str, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run `imctl serve` with options that must make it exit. Returns (exit status, standard error)."""
    command = [sys.executable, "-m", "cli", "serve", "--config", str(config), *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | (env or {}),
    )
    return done.returncode, done.stderr


WRONG = {
    "a typo in a section": ("limits:\n", "limit:\n", "limit: unknown key"),
    "a typo in a key": ("max_inflight:", "max_inflght:", "limits.max_inflght: unknown key"),
    "a word for a number": ("max_queued: 1000", "max_queued: many", "limits.max_queued"),
    "a number for a list": ("open: []", "open: 5", "topics.open"),
    "out of range": ("id: 0 ", "id: 5000 ", "node.id"),
    "a platform topic opened": ("open: []", 'open: ["users/#"]', "topics.open"),
    "an unknown listener key": (
        "max_connections: 0",
        "max_conections: 0",
        "listeners.default.max_conections: unknown key",
    ),
    "an unknown listener type": ("type: ws", "type: carrier-pigeon", "listeners"),
    "a bad address": ("bind: 127.0.0.1:8083", "bind: 127.0.0.1:none", "listeners.ws.bind"),
    "no default listener": ("  default:\n", "  standard:\n", "listeners.default: missing"),
    "an unknown plugin": ("UserAuthPlugin:", "UserOathPlugin:", "plugins.plugins.auth.UserOathPlugin"),
    "an unknown plugin option": (
        "allow_anonymous: false",
        "allow_anonimous: false",
        "plugins.plugins.auth.UserAuthPlugin.allow_anonimous: unknown key",
    ),
    "a plugin option of the wrong type": (
        "allow_anonymous: false",
        "allow_anonymous: 7",
        "plugins.plugins.auth.UserAuthPlugin",
    ),
    "a key that is gone": (
        "  max_batch: 1000",
        "  backend: sqlite\n  max_batch: 1000",
        "storage.backend: this key is gone, because the store is a plugin now: "
        "remove it and add to `plugins`: plugins.persistence.sqlite.SqlitePersistencePlugin: {}\n",
    ),
    "no persistence plugin": (
        STORE,
        "",
        "plugins: none of them stores messages, "
        "add one: plugins.persistence.sqlite.SqlitePersistencePlugin: {}\n",
    ),
    "two persistence plugins": (
        STORE,
        f"{STORE}\n  tests.outside.memory_store.MemoryPersistencePlugin: {{}}",
        "plugins: only one of them can store messages, remove all but one of "
        "plugins.persistence.sqlite.SqlitePersistencePlugin, "
        "tests.outside.memory_store.MemoryPersistencePlugin\n",
    ),
    "an unknown persistence plugin": (
        STORE,
        "  plugins.persistence.paper.PaperPersistencePlugin: {}",
        "plugins.plugins.persistence.paper.PaperPersistencePlugin: No module named",
    ),
    "an unknown option of the persistence plugin": (
        STORE,
        STORE.replace("{}", "{fsync: false}"),
        "plugins.plugins.persistence.sqlite.SqlitePersistencePlugin.fsync: unknown key",
    ),
    "no YAML": ("limits:\n", "limits: [\n", "not valid YAML"),
}


NO_LINE = ("no persistence plugin", "two persistence plugins", "no default listener", "no YAML")
"""What is wrong is not on the line that was changed."""


def line_of(config: Path, text: str) -> int:
    """The line of a key: of the last one in a text."""
    key = next(line for line in text.strip().splitlines()[::-1] if "max_batch" not in line).strip()
    lines = config.read_text().splitlines()
    return next(number for number, line in enumerate(lines, start=1) if key in line)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_configuration_is_refused(tmp_path: Path, name: str) -> None:
    old, new, message = WRONG[name]
    assert old in GOOD
    config = tmp_path / "broker.yaml"
    config.write_text(GOOD.replace(old, new, 1))
    status, error = serve(config, "--data-dir", str(tmp_path / "data"))
    assert status == 2
    assert message in error
    assert "Traceback" not in error
    assert name in NO_LINE or f"{config}:{line_of(config, new)}: " in error


def test_missing_file_and_bad_settings(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text(GOOD)
    data = ("--data-dir", str(tmp_path / "data"))
    tls = line_of(good, "tls_key: null")
    few = {"IM_LIMITS__MAX_INFLIGHT": "few"}
    for (status, error), said in (
        (serve(tmp_path / "absent.yaml", *data), f"{tmp_path}/absent.yaml: No such file"),
        (serve(good, *data, "--set", "limits.max_inflight"), "--set limits.max_inflight: expected"),
        (serve(good, *data, "--set", "limits.no=1"), "--set limits.no: limits.no: unknown key"),
        (serve(good, *data, "--set", "limit.no=1"), "--set limit.no: limit: unknown key"),
        (serve(good, *data, "--set", "limits.max_inflight=[1"), "--set limits.max_inflight: '[1' is not"),
        (serve(good, *data, env={"IM_LIMITS__NO": "1"}), "IM_LIMITS__NO: limits.no: unknown key"),
        (serve(good, *data, env=few), "IM_LIMITS__MAX_INFLIGHT: limits.max_inflight: Input"),
        # what later sources say counts
        (serve(good, *data, "--set", "limits.max_inflight=x", env=few), "--set limits.max_inflight: limits"),
        (serve(good, *data, "--set", "limits={max_inflight: x}"), "--set limits: limits.max_inflight: "),
        # what others than the configuration find
        (serve(good, *data, "--set", "grpc.tls_cert=/x"), f"{good}:{tls}: grpc.tls_key: not set"),
        (serve(good, *data, "--set", "listeners.ws.bind=x:y"), "--set listeners.ws.bind: listeners.ws.bind"),
        (serve(good, *data, env={"IM_LISTENERS__WS__TYPE": "x"}), "IM_LISTENERS__WS__TYPE: listeners.ws"),
    ):
        assert status == 2
        assert "Traceback" not in error
        assert error.startswith(f"imctl serve: {said}"), error


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("storage.backend=sqlite", "storage.backend: this key is gone"),
        (
            "plugins.plugins.persistence.sqlite.SqlitePersistencePlugin.fsync=false",
            "plugins.plugins.persistence.sqlite.SqlitePersistencePlugin.fsync: unknown key",
        ),
    ],
)
def test_settings_of_the_store_are_checked(tmp_path: Path, setting: str, message: str) -> None:
    status, error = serve("config/broker.yaml", "--data-dir", str(tmp_path / "data"), "--set", setting)
    assert (status, error.count("\n")) == (2, 1)
    assert message in error
    assert not (tmp_path / "data").exists()


def test_a_store_that_cannot_be_opened_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "parley.db").write_bytes(b"These are my notes, not a database. " * 100)
    status, error = serve("config/broker.yaml", "--data-dir", str(tmp_path))
    assert (status, error.count("\n")) == (1, 1)
    assert f"{tmp_path / 'parley.db'}: file is not a database" in error


def test_port_taken_is_one_clear_line(tmp_path: Path) -> None:
    keys = ("listeners.default.bind", "listeners.ws.bind", "grpc.bind", "http.bind")
    for key in keys:
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            binds = dict.fromkeys(keys, 0) | {key: port}
            settings = [part for k, p in binds.items() for part in ("--set", f"{k}={HOST}:{p}")]
            status, error = serve("config/broker.yaml", "--data-dir", str(tmp_path / "data"), *settings)
        assert status == 1
        assert f"{HOST}:{port}" in error
        assert error.startswith(f"imctl serve: --set {key}: {key}: cannot listen on ")
        assert error.count("\n") == 1
        assert "Traceback" not in error


@pytest.mark.parametrize("lock", ["there", "deleted"])
def test_second_node_on_the_same_data(make_node: Callable[..., Node], lock: str) -> None:
    """Whoever takes the file `lock` for a stale one and deletes it must not get two nodes on one store."""
    node = make_node().start()
    if lock == "deleted":
        (node.data_dir / "lock").unlink()
    binds = [
        part
        for key in ("listeners.default", "listeners.ws", "grpc", "http")
        for part in ("--set", f"{key}.bind={HOST}:0")
    ]
    status, error = serve("config/broker.yaml", "--data-dir", str(node.data_dir), *binds)
    assert status == 1
    assert "in use by another node" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_cleanly_and_starts_again(make_node: Callable[..., Node], number: signal.Signals) -> None:
    node = make_node().start()
    alice = node.user("alice")
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))
        assert node.stop(number) == 0
        assert client.is_closed()
    assert "Traceback" not in node.log()
    assert not (node.data_dir / "node.json").exists()
    node.start()
    with RawClient(node.port) as client:
        client.login("c", alice, password(alice))


def test_stops_while_a_request_is_half_sent(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    host, _, port = node.http.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        head = b"POST /api/login HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n"
        client.sendall(head)
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")  # it waits for the body
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began < 10
    assert "Traceback" not in node.log()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_an_admin_token_that_is_none(make_node: Callable[..., Node], content: bytes) -> None:
    node = make_node()
    node.data_dir.mkdir()
    (node.data_dir / "admin.token").write_bytes(content)
    command = node.command()
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert run.returncode == 1
    assert "admin.token holds no token" in run.stderr
    assert "unexpected" not in run.stderr


def test_secrets_are_for_their_owner_only(make_node: Callable[..., Node]) -> None:
    node = make_node().start()
    for name in ("admin.token", "token_keys.json"):
        assert (node.data_dir / name).stat().st_mode & 0o077 == 0


def test_environment_overrides_the_file(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IM_LIMITS__MAX_PACKET_BYTES_BEFORE_CONNECT", "300")
    node = make_node().start()
    with RawClient(node.port) as client:
        client.send(connect("x" * 250, "user", "password" * 10))
        assert client.is_closed()


def test_connection_limit_of_a_listener(make_node: Callable[..., Node]) -> None:
    node = make_node("listeners.default.max_connections=1").start()
    alice = node.user("alice")
    with RawClient(node.port) as first:
        first.login("c", alice, password(alice))
        with RawClient(node.port) as second:
            assert second.is_closed()
