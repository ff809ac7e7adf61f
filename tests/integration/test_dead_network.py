"""A client whose network has died without a FIN is offline within `limits.unreachable_after`, or little more,
whatever its keep-alive is. Its will is published. A client that is only slow stays."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import pytest

from bridge.grpc_api import im_pb2, im_pb2_grpc
from tests.integration.network import Proxy, cut
from tests.integration.node import HOST, Node, password, wait_for
from tests.integration.raw import TIMEOUT, RawClient, connect, publish, subscribe
from tests.integration.test_descriptors import HANDSHAKE
from tests.integration.websocket import WebSocketClient, binary

SECONDS = 3.0
"""The shortest `limits.unreachable_after`."""

CONNACK, SUBACK = 2, 9
WILL = ("open/will", b"gone", 1, False)


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = [
        f"limits.unreachable_after={SECONDS}",
        "limits.presence_grace=0.2",
        "limits.calls_per_user=1",
        'topics.open=["open/#"]',
    ]
    node = Node(tmp_path_factory.mktemp("impatient"), settings).start()
    yield node
    node.stop()


class Watcher:
    """An administrator who sees everybody's presence, and the wills."""

    def __init__(self, node: Node) -> None:
        admin = node.user("admin", role="admin")
        self.client = RawClient(node.port)
        self.client.login("watcher", admin, password(admin))
        self.client.send(subscribe(1, ("users/+/presence", 0), ("open/will", 1)))
        self.client.expect(SUBACK)

    def sees_gone(self, user: str) -> bool:
        """Read until the presence of `user` is offline and a will has come. Fails if they do not come."""
        missing = {"presence", "will"}
        while missing:
            topic, payload, _, _ = self.client.message()
            if topic == WILL[0]:
                missing.discard("will")
            elif topic == f"users/{user}/presence" and json.loads(payload)["status"] == "offline":
                missing.discard("presence")
        return True


@pytest.fixture
def watcher(impatient: Node) -> Iterator[Watcher]:
    watcher = Watcher(impatient)
    with watcher.client:
        yield watcher


def arrive(client: RawClient, user: str, *filters: str, keep_alive: int = 0) -> None:
    client.login(f"{user}-phone", user, password(user), keep_alive=keep_alive, will=WILL)
    for number, topic_filter in enumerate(filters, 1):
        client.send(subscribe(number, (topic_filter, 1)))
        client.expect(SUBACK)


@pytest.mark.parametrize("keep_alive", [0, 3600])
def test_a_client_to_whom_nothing_is_sent(impatient: Node, watcher: Watcher, keep_alive: int) -> None:
    alice = impatient.user("alice")
    with RawClient(impatient.port) as client:
        arrive(client, alice, keep_alive=keep_alive)
        cut(client.socket)
        assert watcher.sees_gone(alice)


def test_a_client_to_whom_messages_are_sent(impatient: Node, watcher: Watcher) -> None:
    alice, bob = impatient.user("alice"), impatient.user("bob")
    with RawClient(impatient.port) as client, RawClient(impatient.port) as sender:
        arrive(client, alice, f"users/{alice}/inbox")
        sender.login("bob", bob, password(bob))
        cut(client.socket)
        sender.send(publish(f"users/{alice}/inbox", b"are you there?", 1, 1))
        assert watcher.sees_gone(alice)
    assert impatient.stats()["disconnects.network timeout"] > 0


def fill(node: Node, sender: RawClient) -> None:
    """Publish more than a client that does not read can get."""
    for number in range(1, 121):
        sender.send(publish("open/flood", bytes(100_000), 1, number))
        sender.expect(4)
    wait_for(lambda: node.stats()["outboxes_bytes"] > 500_000, "an outbox to be full")


@pytest.mark.parametrize("is_cut", [True, False], ids=["cut", "slow"])
def test_a_client_that_did_not_read(impatient: Node, watcher: Watcher, *, is_cut: bool) -> None:
    alice, bob = impatient.user("alice"), impatient.user("bob")
    with RawClient(impatient.port) as client, RawClient(impatient.port) as sender:
        arrive(client, alice, "open/flood")
        sender.login("bob", bob, password(bob))
        fill(impatient, sender)
        if is_cut:
            cut(client.socket)
            assert watcher.sees_gone(alice)
            return
        before = impatient.stats()
        wait_for(
            lambda: impatient.stats()["uptime_seconds"] > before["uptime_seconds"] + 2 * SECONDS, "a while"
        )
        client.send(publish("open/alive", b"", 1, 1))
        while client.expect_any().type != 4:
            pass


def web(port: int, user: str) -> socket.socket:
    """A client over WebSocket that answers no pings."""
    client = socket.create_connection((HOST, port), TIMEOUT)
    client.sendall(HANDSHAKE)
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65536)
    packet = connect(f"{user}-web", user, password(user), will=WILL)
    client.sendall(binary(packet).serialize(mask=True, extensions=[]))
    assert client.recv(65536)[2] == CONNACK << 4
    return client


@pytest.mark.parametrize("by_proxy", [False, True], ids=["direct", "behind a proxy"])
def test_a_client_over_websocket(impatient: Node, watcher: Watcher, *, by_proxy: bool) -> None:
    alice = impatient.user("alice")
    with ExitStack() as stack:
        if by_proxy:
            proxy = stack.enter_context(Proxy(impatient.ws_port))
            stack.enter_context(web(proxy.port, alice))
            proxy.silent.set()
        else:
            cut(stack.enter_context(web(impatient.ws_port, alice)))
        assert watcher.sees_gone(alice)


def test_clients_that_are_silent_and_alive(impatient: Node) -> None:
    alice = impatient.user("alice")
    with RawClient(impatient.port) as tcp, WebSocketClient(impatient) as web:
        for name, client in (("tcp", tcp), ("web", web)):
            client.login(name, alice, password(alice), keep_alive=0)
        until = time.monotonic() + 2 * SECONDS
        wait_for(lambda: time.monotonic() > until, "a while")
        for client in (tcp, web):
            client.send(b"\xc0\x00")
            client.expect(13)


def test_a_stream_of_grpc(impatient: Node) -> None:
    alice = impatient.user("alice")
    metadata = (("authorization", f"Bearer {impatient.token(alice)}"),)
    with RawClient(impatient.port) as client:
        client.login("phone", alice, password(alice))
        client.send(publish(f"users/{alice}/inbox", b"a note", 1, 1))
        client.expect(4)

    def open_stream(channel: grpc.Channel) -> bool:
        """Whether it is accepted: a user may have one at a time."""
        stub = im_pb2_grpc.MessageServiceStub(channel)
        streams.append(stub.SyncMessages(im_pb2.SyncRequest(follow=True), metadata=metadata))
        with suppress(grpc.RpcError):
            return bool(next(streams[-1]).json)
        return False

    streams: list[Any] = []
    host, _, port = impatient.grpc.rpartition(":")
    with Proxy(int(port)) as proxy, grpc.insecure_channel(f"{host}:{proxy.port}") as first:
        assert open_stream(first)
        with grpc.insecure_channel(impatient.grpc) as second:
            assert not open_stream(second)
            proxy.silent.set()
            wait_for(lambda: open_stream(second), "the stream to be ended", 15)


def test_a_connection_over_http(impatient: Node) -> None:
    host, _, port = impatient.http.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), TIMEOUT) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        cut(client)
        ours = client.getsockname()[1]
        wait_for(lambda: ours not in peers_of(impatient, int(port)), "the connection to be closed", 15)


def peers_of(node: Node, port: int) -> set[int]:
    """The ports of the clients whose connections to a port of the node are established."""
    assert node.process is not None
    with open(f"/proc/{node.process.pid}/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return {int(row[2][9:], 16) for row in rows if int(row[1][9:], 16) == port and row[3] == "01"}
