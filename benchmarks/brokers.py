"""The measured brokers. Each runs as a child process that is always stopped.

A Broker exists for the whole benchmark and owns a directory. `start()` starts a fresh Node for each
measurement, so that no workload inherits the heap of another.
"""

import importlib.metadata
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .loadgen import BenchmarkError
from .trees import ROOT, WORKING_TREE, Tree

HOST = "127.0.0.1"
TREE_CLI = Path(__file__).resolve().parent / "tree_cli.py"
START_SECONDS = 30.0
STOP_SECONDS = 3.0
# All load comes from one address and a few clients, as fast as they can.
UNLIMITED = 1_000_000_000
RAISED_LIMITS = ("connects_per_second", "publishes_per_second")
COMMAND_SECONDS = 20.0
PARALLEL_COMMANDS = 4
PROVISION_SECONDS = 60.0


class StartError(BenchmarkError):
    """A broker does not start, or its users cannot be created."""


@dataclass(frozen=True, slots=True)
class Node:
    """A running broker. `tokens` maps user -> MQTT password; empty if all clients are anonymous."""

    host: str
    port: int
    pid: int
    tokens: dict[str, str] = field(default_factory=dict)


class Broker(ABC):
    """A broker to measure. It owns `directory`, which is empty at first and kept between its nodes.

    `durable`: its nodes have users who write to each other's inboxes, so they run only the workloads that
    are `durable`. `root` is the working directory of its commands.
    """

    name: str
    durable = False
    root = ROOT

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory

    def missing(self) -> str | None:
        """Why this broker cannot be measured here, or None."""
        return None

    def version(self) -> str:
        """The measured version, for the report."""
        return WORKING_TREE.label

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """The command line that serves MQTT on HOST:`port`, to be run in `root`."""

    @contextmanager
    def start(self) -> Iterator[Node]:
        """Start a node that accepts connections. StartError if it does not start."""
        (port,) = free_ports(1)
        log = self.directory / "output.log"
        with child_process(self.command(port), log, self.root) as process:
            _wait_until_listening(process, port, log)
            yield Node(HOST, port, process.pid)


class Mosquitto(Broker):
    """Mosquitto as installed, without its limits on inflight and queued messages, so that it drops none.

    By default it leaves TCP_NODELAY off. Under load the kernel then joins the messages that Mosquitto
    writes one by one, which costs less CPU per message and more latency.
    """

    name = "mosquitto"
    nodelay = False

    def missing(self) -> str | None:
        return None if _mosquitto() else "not installed (no mosquitto executable found)"

    def version(self) -> str:
        # `mosquitto -h` exits with status 3 and prints the version in its first line.
        help_text = subprocess.run(
            [_mosquitto() or "", "-h"],
            check=False,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        ).stdout
        return help_text.splitlines()[0].rpartition(" ")[2]

    def command(self, port: int) -> list[str]:
        config = self.directory / "mosquitto.conf"
        config.write_text(
            f"listener {port} {HOST}\n"
            "allow_anonymous true\n"
            "persistence false\n"
            "max_inflight_messages 0\n"
            "max_queued_messages 0\n"
            f"set_tcp_nodelay {str(self.nodelay).lower()}\n"
            "log_dest stderr\n"
            "log_type error\n"
            "log_type warning\n"
        )
        return [_mosquitto() or "", "-c", str(config)]


class MosquittoNodelay(Mosquitto):
    """Mosquitto with TCP_NODELAY, so that it sends each message at once, as asyncio brokers do."""

    name = "mosquitto-nodelay"
    nodelay = True


class Amqtt(Broker):
    """The amqtt broker with its anonymous authentication plugin and no other plugin."""

    name = "amqtt"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("amqtt") else "not installed (no amqtt package)"

    def version(self) -> str:
        return importlib.metadata.version("amqtt")

    def command(self, port: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.amqtt_broker", str(port)]


class Parley(Broker):
    """A Parley node with anonymous clients on open topics.

    It runs the code, the configuration and the imctl of `tree`, not the installed ones. All limits are as
    shipped but RAISED_LIMITS, which would be what the workloads measure: how fast one address may connect,
    and how fast one user may publish.
    """

    name = "parley"

    def __init__(self, directory: Path, tree: Tree = WORKING_TREE) -> None:
        super().__init__(directory)
        self.tree = tree
        self.root = tree.root
        if tree != WORKING_TREE:
            self.name = f"{self.name}@{tree.label}"

    def version(self) -> str:
        return self.tree.label

    def command(self, port: int) -> list[str]:
        websocket, grpc, http = free_ports(3)
        settings = (
            f"listeners.default.bind={HOST}:{port}",
            f"listeners.ws.bind={HOST}:{websocket}",
            f"grpc.bind={HOST}:{grpc}",
            f"http.bind={HOST}:{http}",
            'topics.open=["bench/#"]',
            "plugins.plugins.auth.UserAuthPlugin.allow_anonymous=true",
            *self._raised(),
        )
        options = [part for setting in settings for part in ("--set", setting)]
        serve = ("serve", "--config", "config/broker.yaml", "--data-dir", str(self.data_dir))
        return [*self._imctl(), *serve, *options]

    def _raised(self) -> list[str]:
        """Settings for those of RAISED_LIMITS that the tree knows: an older one may not have them."""
        shipped = (self.root / "config" / "broker.yaml").read_text()
        return [f"limits.{key}={UNLIMITED}" for key in RAISED_LIMITS if f"  {key}:" in shipped]

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    def _imctl(self) -> list[str]:
        # -P keeps the script's directory off the import path.
        return [sys.executable, "-P", str(TREE_CLI), str(self.root)]

    def cli(self, *arguments: str, stdin: str = "") -> str:
        """Run an imctl command against the running node. Returns its standard output, or raises
        StartError."""
        command = [*self._imctl(), "--data-dir", str(self.data_dir), *arguments]
        try:
            done = subprocess.run(
                command,
                check=False,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                cwd=self.root,
            )
        except subprocess.TimeoutExpired as error:
            raise StartError(f"timeout: {' '.join(arguments[:2])}") from error
        if done.returncode:
            raise StartError(f"{' '.join(arguments[:2])}: {_last_line(done.stderr)}")
        return done.stdout


class ParleyDurable(Parley):
    """A Parley node whose `users` write to each other's inboxes: messages are stored and fsynced."""

    name = "parley-durable"
    durable = True

    def __init__(self, directory: Path, users: Sequence[str], tree: Tree = WORKING_TREE) -> None:
        super().__init__(directory, tree)
        self._users = users
        self._tokens: dict[str, str] = {}

    @contextmanager
    def start(self) -> Iterator[Node]:
        with super().start() as node:
            # The users stay in the data directory, so they are created once for all nodes.
            if not self._tokens:
                self._tokens = provision(self, self._users)
            yield Node(node.host, node.port, node.pid, self._tokens)


def provision(parley: Parley, users: Sequence[str]) -> dict[str, str]:
    """Create `users` on the running node. Returns user -> token, or raises StartError."""

    def create(user: str) -> str:
        parley.cli("user", "add", user, "--password-stdin", stdin=secrets.token_urlsafe())
        return parley.cli("token", user).strip()

    # A command is mostly the start of an interpreter. A few at a time keep a small machine responsive.
    pool = ThreadPoolExecutor(PARALLEL_COMMANDS)
    try:
        return dict(zip(users, pool.map(create, users, timeout=PROVISION_SECONDS), strict=True))
    except TimeoutError as error:
        raise StartError(f"timeout: the users were not created in {PROVISION_SECONDS:.0f} s") from error
    finally:
        pool.shutdown(cancel_futures=True)


def free_ports(count: int) -> list[int]:
    """Free TCP ports on HOST. All are held until the last is chosen, so they are distinct."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def child_process(command: list[str], log: Path, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in `root`, in a process group of its own. On exit the whole group is ended."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        # Also after a clean exit, because the broker may have left children behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            text = log.read_text(errors="replace")
            raise StartError(f"did not start: {_last_line(text)}")
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise StartError(f"timeout: not listening after {START_SECONDS:.0f} s")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def _mosquitto() -> str | None:
    # Debian installs it in /usr/sbin, which is not in every user's PATH.
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
