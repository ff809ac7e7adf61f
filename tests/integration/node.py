"""A real node in a process of its own, for tests: start, stop, kill -9, start again."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api import im_admin_pb2_grpc as services

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
DEADLINE = 30.0

_names = itertools.count(1)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Wait until `condition()` is true and return it; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.02)
    return result


class Node:
    """`imctl serve` on free ports, with its data in `directory`/data."""

    def __init__(self, directory: Path, settings: Iterable[str] = (), config: Path | None = None) -> None:
        self.data_dir = directory / "data"
        self.log_file = directory / "node.log"
        self._settings = list(settings)
        self._config = config or ROOT / "config" / "broker.yaml"
        self.environment: dict[str, str] = {}
        """What its process has in addition."""
        self.accept_new_store = False
        self.process: subprocess.Popen[bytes] | None = None
        self._channel: grpc.Channel | None = None

    # --- its process -----------------------------------------------------------------

    program = "cli"
    """The module to run."""

    def command(self) -> list[str]:
        settings = [
            f"listeners.default.bind={HOST}:0",
            f"listeners.ws.bind={HOST}:0",
            f"grpc.bind={HOST}:0",
            f"http.bind={HOST}:0",
            *self._settings,
        ]
        options = [part for setting in settings for part in ("--set", setting)]
        serve = ["serve", "--config", str(self._config), "--data-dir", str(self.data_dir)]
        if self.accept_new_store:
            serve.append("--accept-new-store")
        return [sys.executable, "-m", self.program, *serve, *options]

    def start(self) -> "Node":
        (self.data_dir / "node.json").unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self.environment,
            )
        wait_for(self._is_up, f"the node to start; its log:\n{self.log()}")
        return self.meet()

    def meet(self) -> "Node":
        """Find the ports of the running node."""
        places = json.loads((self.data_dir / "node.json").read_bytes())
        self.port = int(places["listeners"]["default"].rpartition(":")[2])
        self.ws_port = int(places["listeners"].get("ws", ":0").rpartition(":")[2])
        self.http = f"http://{places['http']}"
        self.grpc = str(places["grpc"])
        self._channel = grpc.insecure_channel(places["grpc"])
        self.admin = services.AdminServiceStub(self._channel)
        token = (self.data_dir / "admin.token").read_text().strip()
        self.metadata = (("authorization", f"Bearer {token}"),)
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the node ended:\n{self.log()}"
        return (self.data_dir / "node.json").exists()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process with a signal; returns its exit status."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self.process is None:
            return 0
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        self.process = None
        return status

    def kill(self) -> None:
        """kill -9."""
        self.stop(signal.SIGKILL)

    def log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def rss_kb(self) -> int:
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024

    # --- its administration ----------------------------------------------------------

    def call(self, method: str, request: Any) -> Any:
        return getattr(self.admin, method)(request, metadata=self.metadata, timeout=DEADLINE)

    def user(self, prefix: str = "u", role: str = "user") -> str:
        """Add a user with a unique name and the password `password(name)`."""
        name = f"{prefix}-{next(_names)}"
        self.call("AddUser", pb.AddUserRequest(user_id=name, password=password(name), role=role))
        return name

    def group(self, owner: str, *members: str, name: str | None = None) -> str:
        group = name or f"g-{next(_names)}"
        self.call(
            "CreateGroup", pb.CreateGroupRequest(group_id=group, name=group, owner=owner, members=members)
        )
        return group

    def token(self, user: str, ttl: int = 3600) -> str:
        return str(self.call("IssueToken", pb.IssueTokenRequest(user_id=user, ttl_seconds=ttl)).token)

    def stats(self) -> dict[str, int]:
        return dict(self.call("Stats", pb.StatsRequest()).values)

    def history(self, conversation: str, after: int = 0) -> list[dict[str, Any]]:
        """All messages of a conversation with a seq greater than `after`."""
        messages: list[dict[str, Any]] = []
        before = 0
        while True:
            request = pb.HistoryRequest(conversation_id=conversation, before_seq=before, limit=100)
            page = [json.loads(entry) for entry in self.call("History", request).messages]
            messages = [entry for entry in page if entry["seq"] > after] + messages
            if not page or page[0]["seq"] <= after + 1:
                return messages
            before = page[0]["seq"]


class RemoteNode(Node):
    """A node whose broker and services exchange bytes only."""

    program = "tests.integration.remote_node"


def password(user: str) -> str:
    return f"secret-of-{user}"
