"""A full disk, and files removed under a running node: nobody is acknowledged, nobody is disconnected, and
/readyz says why. When the disk has room again, everything goes on in its order."""

import json
import os
import resource
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration import raw
from tests.integration.im import Device
from tests.integration.node import DEADLINE, ROOT, Node, password, wait_for
from tests.integration.raw import RawClient

PUBACK, PINGRESP = 4, 13
MANY = 20
FEW = 10
"""Publishes that together have less than the 16 KiB beyond which a client is not read during an outage."""
PADDING = "x" * 5000


class SmallDisk:
    """The disk of a node's data, which can be full: a file system of its own."""

    def __init__(self, node: Node) -> None:
        self._folder = node.data_dir
        self._folder.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", self._folder], check=True)

    def fill(self) -> None:
        try:
            with (self._folder / "filler").open("wb") as filler:
                while True:
                    filler.write(bytes(4096))
                    filler.flush()
        except OSError:
            pass

    def free(self) -> None:
        (self._folder / "filler").unlink()

    def close(self) -> None:
        subprocess.run(["umount", self._folder], check=True)


class LimitedFiles:
    """As if the disk were full: no file of the node may grow. For users who may not mount."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def _limit(self, soft: int) -> None:
        assert self._node.process is not None
        resource.prlimit(self._node.process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    def fill(self) -> None:
        self._limit((self._node.data_dir / "parley.db-wal").stat().st_size)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def close(self) -> None:
        pass


DISKS = [LimitedFiles, SmallDisk] if os.geteuid() == 0 else [LimitedFiles]


@pytest.fixture(params=DISKS, ids=lambda kind: str(kind.__name__))
def disk(request: pytest.FixtureRequest, node: Node) -> Iterator[SmallDisk | LimitedFiles]:
    disk: SmallDisk | LimitedFiles = request.param(node)
    try:
        node.start()
        yield disk
    finally:
        node.stop()
        disk.close()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node('topics.open=["open/#"]')


class Publisher(RawClient):
    """Publishes to an inbox with QoS 1, and notes what was acknowledged."""

    def __init__(self, node: Node, user: str, to: str) -> None:
        super().__init__(node.port)
        self.login(f"device-of-{user}", user, password(user))
        self._user, self._topic = user, f"users/{to}/inbox"
        self.sent = 0

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.sent += 1
            body = {
                "content": f"{self.sent}",
                "client_msg_id": f"c-{self.sent}",
                "data": {"x": PADDING[:1000]},
            }
            self.send(raw.publish(self._topic, json.dumps(body).encode(), 1, self.sent))

    def acknowledged(self, first: int, last: int) -> None:
        for packet_id in range(first, last + 1):
            assert int.from_bytes(self.expect(PUBACK).body, "big") == packet_id

    def is_served(self) -> None:
        """The connection is there: a ping is answered, and nothing else came before."""
        self.send(raw.packet(0xC0))
        self.expect(PINGRESP)


def ready(node: Node) -> str:
    """What /readyz says: "" if it is ready."""
    try:
        with urllib.request.urlopen(f"{node.http}/readyz", timeout=DEADLINE) as answer:
            assert json.loads(answer.read()) == {"status": "ready"}
            return ""
    except urllib.error.HTTPError as error:
        return f"{error.code} {json.loads(error.read())}"


def is_serving(node: Node) -> bool:
    stub = health_pb2_grpc.HealthStub(node._channel)
    request = health_pb2.HealthCheckRequest(service="im.MessageService")
    status = stub.Check(request, timeout=DEADLINE).status
    return bool(status == health_pb2.HealthCheckResponse.SERVING)


def texts(node: Node, one: str, other: str) -> list[str]:
    return [entry["content"] for entry in node.history(":".join(["p", *sorted((one, other))]))]


def test_publishers_wait_while_the_disk_is_full(node: Node, disk: SmallDisk | LimitedFiles) -> None:
    ann, ben, eve = node.user("ann"), node.user("ben"), node.user("eve")
    with Publisher(node, ann, ben) as first, RawClient(node.port) as retaining:
        retaining.login("sensor", eve, password(eve))
        first.publish(5)
        first.acknowledged(1, 5)
        assert ready(node) == ""
        disk.fill()
        retaining.send(raw.publish("open/a", PADDING.encode(), 1, 1, retain=True))
        first.publish(MANY)
        found = wait_for(lambda: ready(node), "the node to be not ready")
        assert found.startswith("503 ")
        assert "full" in found or "I/O error" in found
        wait_for(lambda: not is_serving(node), "gRPC to be not serving")
        with Publisher(node, eve, ben) as second:  # who comes now waits, too
            second.publish(2)
            second.is_served()
            disk.free()
            first.acknowledged(6, 5 + MANY)
            second.acknowledged(1, 2)
            assert int.from_bytes(retaining.expect(PUBACK).body, "big") == 1
            first.publish(1)
            first.acknowledged(6 + MANY, 6 + MANY)
    wait_for(lambda: not ready(node), "the node to be ready")
    wait_for(lambda: is_serving(node), "gRPC to be serving")
    assert texts(node, ann, ben) == [str(n) for n in range(1, 7 + MANY)]
    assert texts(node, eve, ben) == ["1", "2"]
    log = node.log()
    assert log.count("commits fail, publishers wait") == log.count("commits work again")
    assert "store failed" not in log
    assert "Traceback" not in log


def test_a_node_with_a_full_disk_ends_and_starts_again(node: Node, disk: SmallDisk | LimitedFiles) -> None:
    ann, ben = node.user("ann"), node.user("ben")
    with Publisher(node, ann, ben) as publisher:
        publisher.publish(5)
        publisher.acknowledged(1, 5)
        disk.fill()
        publisher.publish(MANY)
        wait_for(lambda: ready(node), "the node to be not ready")
        assert node.stop() == 0
        assert publisher.is_closed(), "nothing is acknowledged that is not stored"
    if isinstance(disk, SmallDisk):
        disk.free()
    node.start()
    assert texts(node, ann, ben) == [str(n) for n in range(1, 6)]


@pytest.mark.parametrize("kind", DISKS)
def test_kept_events_wait_for_room(
    make_node: Callable[..., Node], tmp_path: Path, kind: type[SmallDisk | LimitedFiles]
) -> None:
    """The directory is elsewhere: it takes the changes that the events tell of."""
    node = make_node(f"storage.directory_url=sqlite:///{tmp_path / 'directory.db'}")
    disk = kind(node)
    try:
        node.start()
        ann, ben = node.user("ann"), node.user("ben")
        with Device(node, ann) as device:
            for _ in range(MANY):  # so that no file of the directory is as large as those of the messages
                device.say(ben, {"content": "x" * 20_000})
            disk.fill()
            names = [f"Ann {number}" for number in range(5)]
            for name in names:
                device.rpc("users.update", name=name)
            assert device.told("profile") == []
            disk.free()
            device.until(lambda: len(device.told("profile")) == len(names), "the events")
            assert [event["name"] for event in device.told("profile")] == names
        assert not any(number for name, number in node.stats().items() if name.startswith("dropped.events"))
        assert node.log().count("events wait until the store can commit") == 1
    finally:
        node.stop()
        disk.close()


def remove(folder: Path) -> None:
    for file in folder.glob("parley.db*"):
        file.unlink()


def replace(folder: Path) -> None:
    shutil.copy(folder / "parley.db", folder / "copy")
    (folder / "copy").replace(folder / "parley.db")


def remove_log(folder: Path) -> None:
    (folder / "parley.db-wal").unlink()


@pytest.mark.parametrize("lose", [remove, replace, remove_log])
def test_a_store_that_goes_is_noticed(node: Node, lose: Callable[[Path], None]) -> None:
    node.start()
    ann, ben = node.user("ann"), node.user("ben")
    with Publisher(node, ann, ben) as publisher:
        publisher.publish(5)
        publisher.acknowledged(1, 5)
        lose(node.data_dir)
        publisher.publish(FEW)
        assert "was removed or replaced" in wait_for(lambda: ready(node), "the node to be not ready")
        publisher.is_served()
    assert node.log().count("commits fail, publishers wait") == 1
    assert node.stop() == 0


def test_an_idle_node_notices_it_as_well(node: Node) -> None:
    node.start()
    remove(node.data_dir)
    wait_for(lambda: "not ready: " in node.log(), "a line in the log")
    wait_for(lambda: not is_serving(node), "gRPC to be not serving")
    node.stop()
    done = subprocess.run(
        node.command(), check=False, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "message store (new or emptied)" in done.stderr


def test_the_files_of_the_directory_are_watched_too(node: Node) -> None:
    node.start()
    (node.data_dir / "directory.db").unlink()
    assert "directory.db was removed" in wait_for(lambda: ready(node), "the node to be not ready")
