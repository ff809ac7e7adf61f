"""Listeners behind a proxy that tells the address of each client by the PROXY protocol."""

import json
import select
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from bridge.grpc_api import im_admin_pb2_grpc as services
from deploy.local.nginx import beginning
from tests.integration.node import DEADLINE, HOST, Node, password, wait_for
from tests.integration.raw import RawClient, connect
from tests.servers import nginx
from tests.servers.processes import free_port

MakeNode = Callable[..., Node]

BEGINNING = beginning()
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"
PROXIED = (
    f"node.trusted_proxies=[{HOST}]",
    "listeners.default.proxy_protocol=true",
    "listeners.ws.proxy_protocol=true",
)
UPGRADE = (
    b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)


def v1(address: str, port: int = 5000) -> bytes:
    return f"PROXY TCP4 {address} 127.0.0.1 {port} 1883\r\n".encode()


def v2(address: str, port: int = 5000) -> bytes:
    packed = bytes(map(int, address.split(".")))
    tlv = b"\x04\x00\x02\x00\x00"
    body = packed + bytes((127, 0, 0, 1)) + struct.pack("!HH", port, 1883) + tlv
    return SIGNATURE + b"\x21\x11" + len(body).to_bytes(2, "big") + body


def frame(data: bytes) -> bytes:
    """A client's WebSocket frame, masked with zeros."""
    return bytes((0x82, 0x80 | len(data))) + bytes(4) + data


def addresses(node: Node, user: str) -> list[str]:
    """Where the sessions of a user are connected from, as `imctl sessions` shows it."""
    answer = node.call("ListSessions", pb.ListSessionsRequest(user_id=user))
    return sorted(session.address for session in answer.sessions if session.address)


def refused(node: Node, reason: str) -> int:
    return node.stats().get(f"refused.{reason}", 0)


def login(port: int, user: str, *pieces: bytes) -> RawClient:
    client = RawClient(port)
    for piece in pieces:
        client.send(piece)
    client.login(f"of-{user}", user, password(user))
    return client


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    shared = Node(tmp_path_factory.mktemp("proxied"), PROXIED).start()
    yield shared
    shared.stop()


# --- who the client is -------------------------------------------------------------------


@pytest.mark.parametrize("header", [v1, v2])
@pytest.mark.parametrize("kind", ["whole", "with CONNECT", "byte by byte"])
def test_a_client_has_its_own_address(node: Node, header: Callable[[str], bytes], kind: str) -> None:
    user = node.user()
    data, hello = header("192.0.2.1"), connect("d", user, password(user))
    with RawClient(node.port) as client:
        if kind == "with CONNECT":
            client.send(data + hello)
        else:
            pieces = [data] if kind == "whole" else [data[at : at + 1] for at in range(len(data))]
            for piece in pieces:
                client.send(piece)
            client.send(hello)
        assert client.expect(2).body == b"\0\0"
        assert addresses(node, user) == ["192.0.2.1:5000"]
        client.send(b"\xc0\0")
        client.expect(13)


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"])
def test_a_proxy_that_speaks_for_itself_has_its_own_address(node: Node, header: bytes) -> None:
    user = node.user()
    with login(node.port, user, header):
        assert addresses(node, user)[0].startswith(f"{HOST}:")


@pytest.mark.parametrize("header", [v1("192.0.2.1"), v2("192.0.2.1")])
@pytest.mark.parametrize("in_one", [True, False])
def test_a_websocket_client_has_its_own_address(node: Node, header: bytes, in_one: bool) -> None:
    user = node.user()
    hello = frame(connect("w", user, password(user)))
    with RawClient(node.ws_port) as client:
        if in_one:
            client.send(header + UPGRADE)
        else:
            for at in range(len(header)):
                client.send(header[at : at + 1])
            client.send(UPGRADE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += client.socket.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        client.send(hello)
        assert client.socket.recv(100) == b"\x82\x04\x20\x02\x00\x00"
        assert addresses(node, user) == ["192.0.2.1:5000"]
    wait_for(lambda: not addresses(node, user), "the session to end")


# --- who is refused ----------------------------------------------------------------------


def test_only_trusted_proxies_may_connect(node: Node) -> None:
    for number in range(30):
        with RawClient(node.port if number % 2 else node.ws_port, source="127.0.0.2") as client:
            assert client.receive() is None
    assert refused(node, "proxy_untrusted") == 30
    lines = [line for line in node.log().splitlines() if "127.0.0.2 is none of" in line]
    assert len(lines) == 10, "log.repeats"


@pytest.mark.parametrize("port", ["port", "ws_port"])
@pytest.mark.parametrize(
    "data",
    [connect("d"), UPGRADE, b"\n" + v1("192.0.2.1"), v2("192.0.2.1").replace(b"\x21\x11", b"\x31\x11")],
)
def test_what_is_no_header_ends_the_connection(node: Node, port: str, data: bytes) -> None:
    before = refused(node, "proxy_header")
    with RawClient(getattr(node, port)) as client:
        client.send(data)
        assert client.receive() is None
    assert refused(node, "proxy_header") == before + 1
    assert f"a connection from {HOST} is refused" in node.log()


@pytest.mark.parametrize("port", ["port", "ws_port"])
def test_a_header_must_come_in_time(make_node: MakeNode, port: str) -> None:
    node = make_node(*PROXIED, "limits.connect_timeout=0.5").start()
    with RawClient(getattr(node, port)) as silent, RawClient(getattr(node, port)) as slow:
        slow.send(v1("192.0.2.1")[:-1])
        began = time.monotonic()
        assert silent.receive() is None
        assert slow.receive() is None
        assert time.monotonic() - began < 5
    with RawClient(getattr(node, port)) as one, RawClient(getattr(node, port)) as asking:
        one.send(v1("192.0.2.1")[:-1])
        asking.socket.close()  # is the port open? That is no offence
    wait_for(lambda: refused(node, "proxy_header") == 3, "all to be counted")


def test_a_header_without_the_option_is_a_protocol_error(make_node: MakeNode) -> None:
    node = make_node(PROXIED[0]).start()
    for header in (v1("192.0.2.1"), v2("192.0.2.1")):
        with RawClient(node.port) as client:
            client.send(header)
            assert client.receive() is None
    assert "protocol error" in node.log()
    assert not refused(node, "proxy_header")


def test_the_option_needs_a_trusted_proxy(make_node: MakeNode) -> None:
    node = make_node("listeners.ws.proxy_protocol=true")
    with pytest.raises(AssertionError):
        node.start()
    assert "--set listeners.ws.proxy_protocol" in node.log() or "listeners.ws.proxy_protocol:" in node.log()
    assert "node.trusted_proxies" in node.log()


# --- limits by address -------------------------------------------------------------------


@pytest.mark.parametrize("port", ["port", "ws_port"])
def test_connections_are_counted_by_the_clients_address(make_node: MakeNode, port: str) -> None:
    node = make_node(*PROXIED, "limits.connections_per_address=2").start()
    place = getattr(node, port)
    clients = [RawClient(place) for _ in range(4)]
    clients[0].send(v1("192.0.2.2"))
    for client in clients[1:]:
        client.send(v1("192.0.2.1"))
    ended, _, _ = select.select([client.socket for client in clients], [], [], DEADLINE)
    assert len(ended) == 1, "one of the three of an address is closed"
    assert ended[0] is not clients[0].socket
    assert refused(node, "address") == 1

    def is_free() -> bool:
        with RawClient(place) as client:
            client.send(v1("192.0.2.1"))
            return not select.select([client.socket], [], [], 0.5)[0]

    assert not is_free()
    for client in clients:
        client.socket.close()
    wait_for(is_free, "the slots to be given back")


def test_wrong_passwords_are_counted_by_the_clients_address(make_node: MakeNode) -> None:
    node = make_node(*PROXIED, "http.failures_per_address=2", "http.failures_per_user=100").start()
    user = node.user()

    def attempt(address: str, secret: str) -> int:
        with RawClient(node.port) as client:
            client.send(v1(address) + connect("d", user, secret))
            return client.expect(2).body[1]

    assert [attempt("192.0.2.1", "wrong") for _ in range(3)] == [5, 5, 3]
    assert attempt("192.0.2.1", password(user)) == 3
    assert attempt("192.0.2.2", password(user)) == 0


# --- HTTP and gRPC, and a real proxy -----------------------------------------------------


def test_http_knows_the_clients_address(make_node: MakeNode) -> None:
    settings = ("http.proxy_protocol=true", "http.failures_per_address=1", "http.failures_per_user=100")
    node = make_node(PROXIED[0], *settings).start()
    user = node.user()
    port = int(node.http.rpartition(":")[2])

    def attempt(address: str, *headers: bytes) -> bytes:
        body = json.dumps({"user_id": user, "password": "wrong"}).encode()
        head = (
            b"POST /api/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        )
        length = b"Content-Length: %d\r\n\r\n" % len(body)
        with RawClient(port) as client:
            client.send(v2(address) + head + b"".join(headers) + length + body)
            return client.socket.makefile("rb").readline().split()[1]

    assert [attempt("192.0.2.1") for _ in range(2)] == [b"401", b"429"]
    assert attempt("192.0.2.1", b"X-Forwarded-For: 192.0.2.9\r\n") == b"429", "it comes from a client now"
    assert attempt("192.0.2.2") == b"401"
    with RawClient(port, source="127.0.0.2") as stranger:
        assert stranger.receive() is None
    assert refused(node, "proxy_untrusted") == 1


@pytest.fixture
def behind_nginx(make_node: MakeNode, tmp_path: Path) -> Iterator[tuple[Node, dict[str, int]]]:
    """A node all ports of which are behind nginx, and nginx's ports."""
    options = ("grpc.proxy_protocol=true", "http.proxy_protocol=true", "limits.connections_per_address=3")
    node = make_node(*PROXIED, *options).start()
    inside = {"mqtt": node.port, "ws": node.ws_port, "grpc": int(node.grpc.rpartition(":")[2])}
    inside["http"] = int(node.http.rpartition(":")[2])
    outside = {name: free_port() for name in inside}
    servers = "".join(
        f"server {{ listen {HOST}:{outside[name]}; proxy_pass {HOST}:{inside[name]}; proxy_protocol on; }}\n"
        for name in inside
    )
    text = f"{BEGINNING}\nevents {{}}\nstream {{\n{servers}}}\n"
    proxy = nginx.own(tmp_path / "nginx", outside["mqtt"], text)
    proxy.start()
    yield node, outside
    proxy.end()


def test_behind_nginx_each_way_in_knows_the_clients_address(
    behind_nginx: tuple[Node, dict[str, int]],
) -> None:
    node, ports = behind_nginx
    with grpc.insecure_channel(f"{HOST}:{ports['grpc']}") as channel:
        node.admin = services.AdminServiceStub(channel)
        user = node.user()
        with RawClient(ports["mqtt"], source="127.0.0.3") as client:
            client.login("d", user, password(user))
            assert addresses(node, user)[0].startswith("127.0.0.3:")
        with RawClient(ports["ws"], source="127.0.0.4") as client:
            client.send(UPGRADE)
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += client.socket.recv(1)
            client.send(frame(connect("w", user, password(user))))
            assert client.socket.recv(100) == b"\x82\x04\x20\x02\x00\x00"
            assert any(address.startswith("127.0.0.4:") for address in addresses(node, user))
        body = json.dumps({"user_id": user, "password": password(user)}).encode()
        request = Request(
            f"http://{HOST}:{ports['http']}/api/login", body, {"Content-Type": "application/json"}
        )
        with urlopen(request, timeout=DEADLINE) as response:
            assert json.load(response)["access_token"]
        # gRPC: the address's limit holds there, too.
        held = [RawClient(ports["grpc"], source="127.0.0.5") for _ in range(4)]
        wait_for(lambda: refused(node, "address") == 1, "the fourth to be refused")
        for each in held:
            each.socket.close()


def test_a_wrong_password_over_grpc_is_logged_with_the_clients_address(
    behind_nginx: tuple[Node, dict[str, int]],
) -> None:
    node, ports = behind_nginx
    place = f"{HOST}:{ports['grpc']}"
    with grpc.insecure_channel(place) as channel, pytest.raises(grpc.RpcError):
        services.AdminServiceStub(channel).Stats(pb.StatsRequest(), timeout=DEADLINE)
    assert f"refused for {HOST}" in node.log()
