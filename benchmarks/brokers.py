"""The brokers under measurement: each is started as a child process and always stopped.

A Broker lives as long as the whole benchmark (it owns a directory); `start()` gives a fresh Node,
one per measurement, so that no workload inherits another one's heap.
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
COMMAND_SECONDS = 20.0
PARALLEL_COMMANDS = 4
PROVISION_SECONDS = 60.0


class StartError(BenchmarkError):
    """A broker that does not come up, or refuses its users."""


@dataclass(frozen=True, slots=True)
class Node:
    """A running broker. `tokens` maps user to MQTT password; empty where all are anonymous."""

    host: str
    port: int
    pid: int
    tokens: dict[str, str] = field(default_factory=dict)


class Broker(ABC):
    """One contestant; `directory` is its own, empty at first and kept between its nodes.

    `durable` means that its nodes have users who write to each other's inboxes, and run only the
    workloads that can be run so. `root` is the directory that its commands are run from.
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
        """What the report calls the measured version."""
        return WORKING_TREE.label

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """The command line that serves MQTT on HOST:`port`, run from `root`."""

    @contextmanager
    def start(self) -> Iterator[Node]:
        """A node that accepts connections; StartError if it does not come up."""
        (port,) = free_ports(1)
        log = self.directory / "output.log"
        with child_process(self.command(port), log, self.root) as process:
            _wait_until_listening(process, port, log)
            yield Node(HOST, port, process.pid)


class Mosquitto(Broker):
    """The Mosquitto package as installed, with limits lifted so that it may drop nothing.

    Its default leaves TCP_NODELAY off: under load the kernel then joins messages that Mosquitto
    writes one by one, which costs less CPU for each, at the price of latency.
    """

    name = "mosquitto"
    nodelay = False

    def missing(self) -> str | None:
        return None if _mosquitto() else "not installed (no mosquitto executable found)"

    def version(self) -> str:
        # `-h` exits with status 3 and names the version in its first line.
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
    """Mosquitto that sends each message at once, as asyncio brokers do."""

    name = "mosquitto-nodelay"
    nodelay = True


class Amqtt(Broker):
    """The amqtt broker with its anonymous authentication plugin and no other."""

    name = "amqtt"

    def missing(self) -> str | None:
        return None if importlib.util.find_spec("amqtt") else "not installed (no amqtt package)"

    def version(self) -> str:
        return importlib.metadata.version("amqtt")

    def command(self, port: int) -> list[str]:
        return [sys.executable, "-m", "benchmarks.amqtt_broker", str(port)]


class Parley(Broker):
    """This repository's node; anonymous clients on an open topic.

    It runs with the code, the configuration and the imctl of `tree`, whatever is installed.
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
        )
        options = [part for setting in settings for part in ("--set", setting)]
        serve = ("serve", "--config", "config/broker.yaml", "--data-dir", str(self.data_dir))
        return [*self._imctl(), *serve, *options]

    @property
    def data_dir(self) -> Path:
        return self.directory / "data"

    def _imctl(self) -> list[str]:
        # -P: the directory of the script does not belong on the import path.
        return [sys.executable, "-P", str(TREE_CLI), str(self.root)]

    def cli(self, *arguments: str, stdin: str = "") -> str:
        """Run one operator command against the running node; return its standard output."""
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
    """This repository's node; `users` write to each other's durable inboxes."""

    name = "parley-durable"
    durable = True

    def __init__(self, directory: Path, users: Sequence[str], tree: Tree = WORKING_TREE) -> None:
        super().__init__(directory, tree)
        self._users = users
        self._tokens: dict[str, str] = {}

    @contextmanager
    def start(self) -> Iterator[Node]:
        with super().start() as node:
            # Users outlive the node in its data directory, so this is done once.
            if not self._tokens:
                self._tokens = provision(self, self._users)
            yield Node(node.host, node.port, node.pid, self._tokens)


def provision(parley: Parley, users: Sequence[str]) -> dict[str, str]:
    """Create `users` on the running node and return a token for each."""

    def create(user: str) -> str:
        parley.cli("user", "add", user, "--password-stdin", stdin=secrets.token_urlsafe())
        return parley.cli("token", user).strip()

    # A command is mostly interpreter start-up; a few at a time keep a small machine responsive.
    pool = ThreadPoolExecutor(PARALLEL_COMMANDS)
    try:
        return dict(zip(users, pool.map(create, users, timeout=PROVISION_SECONDS), strict=True))
    except TimeoutError as error:
        raise StartError(f"timeout: no users after {PROVISION_SECONDS:.0f} s") from error
    finally:
        pool.shutdown(cancel_futures=True)


def free_ports(count: int) -> list[int]:
    """TCP ports on HOST that nobody listens on; distinct, as all are held while choosing."""
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
    """Run `command` from `root` in a process group of its own, gone with its children on exit."""
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
        # Also after a clean exit: the group may hold children that the broker left behind.
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
    # Debian installs it in /usr/sbin, which is not on every user's PATH.
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
