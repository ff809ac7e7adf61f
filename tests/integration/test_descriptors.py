"""Open files and idle connections: health and administration can always be reached."""

import shlex
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api import im_admin_pb2_grpc as services
from tests.integration.node import HOST, Node, password, wait_for
from tests.integration.raw import TIMEOUT, RawClient

MakeNode = Callable[..., Node]

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What a gRPC client sends first (RFC 9113, 3.4): the preface and empty SETTINGS."""
HANDSHAKE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)


class FewFiles(Node):
    """A node that may open 64 files, and 300 if it asks for more."""

    def command(self) -> list[str]:
        served = shlex.join(super().command())
        return ["bash", "-c", f"ulimit -Sn 64 && ulimit -Hn 300 && exec {served}"]


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Node]:
    node = FewFiles(tmp_path, ["limits.connect_timeout=60"]).start()
    yield node
    node.stop()


def limits(node: Node) -> list[str]:
    assert node.process is not None
    text = Path(f"/proc/{node.process.pid}/limits").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("Max open files"))
    return line.split()[3:5]


def open_files(node: Node) -> int:
    assert node.process is not None
    return len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))


def test_the_limit_on_open_files_is_raised_as_far_as_it_may(few: Node) -> None:
    assert limits(few) == ["300", "300"]


@pytest.mark.parametrize(
    ("way", "sent"),
    [("port", b""), ("ws_port", b""), ("ws_port", HANDSHAKE)],
    ids=["TCP", "WebSocket without a handshake", "WebSocket"],
)
def test_health_and_administration_when_clients_use_up_all_files(few: Node, way: str, sent: bytes) -> None:
    alice = few.user("alice")
    port = getattr(few, way)
    with ExitStack() as stack:
        for _ in range(500):
            client = stack.enter_context(socket.create_connection((HOST, port), TIMEOUT))
            with suppress(OSError):  # perhaps it was closed at once
                client.sendall(sent)
        wait_for(lambda: 200 < open_files(few) < 260, "the clients, and those turned away to be gone")
        # Each on a connection of its own.
        with grpc.insecure_channel(few.grpc) as channel:
            stub = services.AdminServiceStub(channel)
            request = pb.StatsRequest()
            values = stub.Stats(request, metadata=few.metadata, timeout=10).values
        assert values["refused.open_files"] > 0
        for path in ("/healthz", "/readyz"):
            assert httpx.get(few.http + path, timeout=10).status_code == 200
        assert open_files(few) < 300
    wait_for(lambda: open_files(few) < 200, "the clients to be gone")
    with RawClient(few.port) as client:
        client.login("c", alice, password(alice))
    assert "Traceback" not in few.log()


def test_administration_when_http_clients_use_up_all_files(few: Node) -> None:
    with ExitStack() as stack:
        host, _, port = few.http.removeprefix("http://").partition(":")
        for _ in range(500):
            stack.enter_context(socket.create_connection((host, int(port)), TIMEOUT))
        wait_for(lambda: open_files(few) > 200, "the clients")
        with grpc.insecure_channel(few.grpc) as channel:
            stub = services.AdminServiceStub(channel)
            assert stub.Stats(pb.StatsRequest(), metadata=few.metadata, timeout=10).values


# --- gRPC ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", HTTP2[:10], HTTP2], ids=["nothing", "a part", "all"])
def test_a_grpc_connection_without_a_call_is_closed(make_node: MakeNode, sent: bytes) -> None:
    node = make_node("grpc.idle_seconds=1", "limits.connect_timeout=1").start()
    host, _, port = node.grpc.rpartition(":")
    with socket.create_connection((host, int(port)), 15) as client:
        client.sendall(sent)
        while client.recv(65536):  # fails after 15 s
            pass


def test_who_watches_health_without_authentication_is_closed(make_node: MakeNode) -> None:
    node = make_node("grpc.idle_seconds=1").start()
    request = health_pb2.HealthCheckRequest(service="im.MessageService")
    with grpc.insecure_channel(node.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=15)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as ended:
            next(watch)
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with grpc.insecure_channel(node.grpc) as channel:
        services.AdminServiceStub(channel).Stats(pb.StatsRequest(), metadata=node.metadata)
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=4)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as ended:
            next(watch)
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_an_honest_client_does_not_notice_that_it_was_closed(make_node: MakeNode) -> None:
    node = make_node("grpc.idle_seconds=1").start()
    states: list[grpc.ChannelConnectivity] = []
    with grpc.insecure_channel(node.grpc) as channel:
        channel.subscribe(states.append)
        stub = services.AdminServiceStub(channel)
        closed = grpc.ChannelConnectivity.IDLE
        for _ in range(2):
            assert stub.Stats(pb.StatsRequest(), metadata=node.metadata, timeout=10).values
            wait_for(lambda: states and states[-1] is closed, "the connection to be closed", 15)
