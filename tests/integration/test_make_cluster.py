"""`make cluster`: a whole cluster on one machine."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.layout import Layout, lay_out, taken
from tests.integration.node import DEADLINE, HOST, ROOT, wait_for
from tests.integration.raw import RawClient, publish, subscribe

START = 120.0


class Cluster:
    """`python -m deploy.local` on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.layout = self._free(folder)
        self.output = folder / "output"
        self.process = self.start(folder, self.layout.outside.mqtt)

    @staticmethod
    def _free(folder: Path) -> Layout:
        for base in range(20_000 + os.getpid() % 50 * 200, 32_000, 200):
            layout = lay_out(folder, base)
            if taken(layout) is None:
                return layout
        raise AssertionError("no free ports")

    def start(self, folder: Path, base: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "deploy.local", "--data", str(folder), "--base-port", str(base)]
        with self.output.open("ab") as out:
            return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def says(self, text: str) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        return text in self.output.read_text()

    def imctl(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "cli", "--data-dir", str(self.layout.folder), *arguments]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def client(self, user: str, number: int) -> RawClient:
        """A client from an address of its own."""
        client = RawClient(self.layout.outside.mqtt, source=f"127.0.0.{number}")
        client.login(f"{user}-{number}", user, "secret")
        return client

    def pid_of(self, name: str) -> int:
        return int(json.loads((self.layout.folder / name / "node.json").read_bytes())["pid"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not below pytest's folder, which MariaDB's user cannot reach.
    with tempfile.TemporaryDirectory(prefix="parley-cluster-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o711)
        cluster = Cluster(folder)
        try:
            wait_for(lambda: cluster.says("Ctrl-C stops"), "the cluster to start", START)
            yield cluster
            cluster.process.send_signal(signal.SIGINT)
            assert cluster.process.wait(DEADLINE) == 0
            assert not list(folder.glob("**/node.json"))
            assert taken(cluster.layout) is None, "all have ended"
        finally:
            cluster.process.kill()
            cluster.process.wait()


def test_clients_of_nginx_are_spread_over_both_gateways_with_their_addresses(cluster: Cluster) -> None:
    for user in ("alice", "bob"):
        cluster.imctl("user", "add", user, "--password", "secret")
    readers = [cluster.client("bob", number) for number in range(3, 9)]
    for reader in readers:
        reader.send(subscribe(1, ("users/bob/inbox", 1)))
        reader.expect(9)
    shown = json.loads(cluster.imctl("sessions", "--json"))
    found = {session["address"].partition(":")[0] for session in shown}
    assert found >= {f"127.0.0.{number}" for number in range(3, 9)}
    with cluster.client("alice", 20) as alice:
        alice.send(publish("users/bob/inbox", b'{"content": "hello"}', 1, 7))
        alice.expect(4)
    for reader in readers:
        assert json.loads(reader.message()[1])["content"] == "hello"
        reader.socket.close()
    with urllib.request.urlopen(
        f"http://{HOST}:{cluster.layout.outside.http}/readyz", timeout=DEADLINE
    ) as answer:
        assert answer.status == 200


def test_a_second_start_is_refused_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    base = cluster.layout.outside.mqtt
    for folder, reason in (
        (cluster.layout.folder, "already"),
        (tmp_path, f"port {base}, for nginx, is in use"),
    ):
        command = [sys.executable, "-m", "deploy.local", "--data", str(folder), "--base-port", str(base)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_process_that_dies_is_named_and_can_be_started_again(cluster: Cluster) -> None:
    dead = cluster.pid_of("gateway-2")
    os.kill(dead, signal.SIGKILL)
    wait_for(lambda: cluster.says("gateway-2 was ended by SIGKILL; the end of"), "it to be told")
    cluster.imctl("user", "add", "carol", "--password", "secret")
    with cluster.client("carol", 30) as carol:  # nginx goes on with the other one
        carol.send(b"\xc0\0")
        carol.expect(13)
    cluster.process.send_signal(signal.SIGHUP)
    wait_for(lambda: cluster.pid_of("gateway-2") != dead, "it to be there again")
