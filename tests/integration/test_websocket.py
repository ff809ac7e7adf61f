"""MQTT over WebSocket (MQTT 3.1.1, chapter 6; RFC 6455), frame by frame."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket

from tests.integration import raw
from tests.integration.node import HOST, Node, password, wait_for
from tests.integration.raw import RawClient

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP = 2, 3, 4, 9, 13
PINGREQ = raw.packet(0xC0)
MASK = b"\x01\x02\x03\x04"


def websocket(node: Node, path: str = "/mqtt", *subprotocols: str) -> ClientConnection:
    return open_websocket(
        f"ws://{HOST}:{node.ws_port}{path}",
        subprotocols=subprotocols or ["mqtt"],
        compression=None,
        proxy=None,
        max_size=None,
        close_timeout=raw.TIMEOUT,
    )


class Frames:
    """The messages of a WebSocket, with the calls of a socket that `RawClient` makes."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    def sendall(self, data: bytes) -> None:
        self.ws.send(data)

    def recv(self, _size: int) -> bytes:
        try:
            frame = self.ws.recv(raw.TIMEOUT)
        except ConnectionClosed:
            return b""
        assert isinstance(frame, bytes)  # [MQTT-6.0.0-1]
        return frame

    def close(self) -> None:
        self.ws.close()


class WebSocketClient(RawClient):
    """A raw client over WebSocket: `send` makes one binary frame, `send_frames` any."""

    def __init__(self, node: Node) -> None:
        self.ws = websocket(node)
        assert self.ws.subprotocol == "mqtt"  # [MQTT-6.0.0-4]
        self.socket = Frames(self.ws)
        self._buffer = b""

    def send_frames(self, *frames: Frame | bytes) -> None:
        """Send frames as they are, in one piece."""
        self.send_raw(
            b"".join(f if isinstance(f, bytes) else f.serialize(mask=True, extensions=[]) for f in frames)
        )

    def send_raw(self, data: bytes) -> None:
        self.ws.socket.sendall(data)


def binary(data: bytes, *, fin: bool = True) -> Frame:
    return Frame(Opcode.BINARY, data, fin=fin)


def continuation(data: bytes, *, fin: bool = True) -> Frame:
    return Frame(Opcode.CONT, data, fin=fin)


def login(client: RawClient, user: str) -> None:
    """Log in, and subscribe to the user's own inbox."""
    client.login(f"raw-{user}", user, password(user))
    client.send(raw.subscribe(1, (f"users/{user}/inbox", 1)))
    assert client.expect(SUBACK).body[2:] == b"\x01"


@pytest.fixture
def client(node: Node) -> Iterator[WebSocketClient]:
    with WebSocketClient(node) as client:
        yield client


@pytest.fixture
def user(node: Node) -> str:
    return node.user("ws")


@contextmanager
def others_undisturbed(node: Node) -> Iterator[None]:
    """Two others, one on WebSocket and one on TCP, talk before and after."""
    one, other = node.user("one"), node.user("other")
    with WebSocketClient(node) as web, RawClient(node.port) as tcp:
        login(web, one)
        login(tcp, other)
        for number in (1, 2):
            said = b"hello %d" % number
            web.send(raw.publish(f"users/{other}/inbox", said, 1, number))
            answers = {web.receive().type, web.receive().type}
            assert answers == {PUBACK, PUBLISH}  # its own copy
            message = json.loads(tcp.message()[1])
            assert (message["content"], message["seq"]) == (said.decode(), number)
            if number == 1:
                yield


# --- the handshake -----------------------------------------------------------------------


@pytest.mark.parametrize("offered", [None, "chat", "mqttv3.1, xmqtt", "MQTT"])
def test_the_subprotocol_is_required(node: Node, offered: str | None) -> None:
    with others_undisturbed(node), pytest.raises(InvalidStatus) as refused:
        open_websocket(
            f"ws://{HOST}:{node.ws_port}/mqtt",
            additional_headers={"Sec-WebSocket-Protocol": offered} if offered else None,
            proxy=None,
        )
    assert refused.value.response.status_code == 400
    assert b"mqtt" in refused.value.response.body


@pytest.mark.parametrize("path", ["/", "/other", "/mqtt/", "/mqtt/deeper", "/MQTT", "/mqtts"])
def test_other_paths_are_not_found(node: Node, path: str) -> None:
    with others_undisturbed(node), pytest.raises(InvalidStatus) as refused:
        websocket(node, path)
    assert refused.value.response.status_code == 404


def test_the_subprotocol_may_be_one_of_several_and_the_path_may_have_a_query(node: Node) -> None:
    with websocket(node, "/mqtt?device=phone", "chat", "mqtt") as ws:
        assert ws.subprotocol == "mqtt"
        ws.send(raw.connect("any"))
        assert ws.recv(raw.TIMEOUT) == b"\x20\x02\x00\x00"


KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPTED = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
USUAL = {
    "Host": ["chat.example.org"],
    "Upgrade": ["websocket"],
    "Connection": ["Upgrade"],
    "Sec-WebSocket-Key": [KEY],
    "Sec-WebSocket-Version": ["13"],
    "Sec-WebSocket-Protocol": ["mqtt"],
}


def answer_to(node: Node, changed: dict[str, list[str]], target: str = "/mqtt") -> tuple[str, dict[str, str]]:
    """The status and headers that answer a handshake with these header lines in place of the usual ones.
    An accepted one goes on with CONNECT and CONNACK."""
    lines = [f"{name}: {value}" for name, values in (USUAL | changed).items() for value in values]
    with socket.create_connection((HOST, node.ws_port), raw.TIMEOUT) as sock:
        sock.sendall("\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode())
        stream = sock.makefile("rb")
        status = stream.readline().split()[1].decode()
        headers = {}
        while line := stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if status == "101":
            sock.sendall(binary(raw.connect("any")).serialize(mask=True, extensions=[]))
            assert stream.read(6) == b"\x82\x04\x20\x02\x00\x00"
    return status, headers


@pytest.mark.parametrize(
    "changed",
    [
        {"Connection": ["keep-alive, Upgrade"]},  # Firefox
        {"Connection": ["Upgrade, keep-alive"]},
        {"Connection": ["keep-alive ,\tupgrade , ,close"]},
        {"Connection": ["keep-alive", "UPGRADE"]},
        {"connection": ["upgrade"], "Connection": ["keep-alive"]},
        {"Upgrade": ["WebSocket"]},
        {"Upgrade": ["h2c, websocket"]},
        {"Upgrade": ["h2c", "websocket"]},
        {"Sec-WebSocket-Protocol": ["chat", "mqtt"]},
        {"Sec-WebSocket-Protocol": ["chat ,\tmqtt"]},
        {"Sec-WebSocket-Protocol": ["mqttv3.1", "chat, mqtt"]},
        {"Sec-WebSocket-Extensions": ["permessage-deflate; client_max_window_bits"]},
        {"Sec-WebSocket-Version": ["8"]},
        {"Origin": ["https://chat.example.org"], "Cookie": ["c=" + "x" * 8000]},
        {"Content-Length": ["0"]},
    ],
    ids=str,
)
def test_every_legal_handshake_is_accepted(node: Node, changed: dict[str, list[str]]) -> None:
    """RFC 6455, 4.2.1: header values are lists of tokens, in any order, in one line or several."""
    status, headers = answer_to(node, changed)
    assert status == "101"
    assert headers["sec-websocket-accept"].encode() == ACCEPTED
    assert (headers["upgrade"], headers["connection"].lower()) == ("websocket", "upgrade")
    assert headers["sec-websocket-protocol"] == "mqtt"


@pytest.mark.parametrize("target", ["http://chat.example.org/mqtt", "HTTPS://chat:8083/mqtt?device=phone"])
def test_a_request_may_name_the_whole_uri(node: Node, target: str) -> None:
    assert answer_to(node, {}, target)[0] == "101"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Connection": ["keep-alive"]}, "400"),
        ({"Connection": ["keep-alive, Upgrades"]}, "400"),
        ({"Connection": []}, "400"),
        ({"Upgrade": ["h2c"]}, "400"),
        ({"Upgrade": ["websockets, h2c"]}, "400"),
        ({"Upgrade": []}, "400"),
        ({"Sec-WebSocket-Protocol": ["chat", "mqtts"]}, "400"),
        ({"Sec-WebSocket-Key": ["short"]}, "400"),
        ({"Sec-WebSocket-Key": []}, "400"),
        ({"Sec-WebSocket-Version": ["12"]}, "426"),
        ({"Sec-WebSocket-Version": []}, "426"),
        ({"Transfer-Encoding": ["chunked"]}, "400"),
    ],
    ids=str,
)
def test_any_other_handshake_is_refused(node: Node, changed: dict[str, list[str]], status: str) -> None:
    found, headers = answer_to(node, changed)
    assert found == status
    assert headers.get("sec-websocket-version") == ("13" if status == "426" else None)


def test_refused_handshakes_are_counted(node: Node) -> None:
    before = node.stats()
    answer_to(node, {"Connection": ["close"]})
    answer_to(node, {}, "/elsewhere")
    after = node.stats()
    for reason in ("refused.websocket_400", "refused.websocket_404"):
        assert after[reason] == before.get(reason, 0) + 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00\r\n\r\n",
        b"GET /mqtt HTTP/1.1\r\n\r\n",
        b"\xff" * 100_000,
    ],
    ids=["mqtt", "no upgrade", "endless"],
)
def test_what_is_no_handshake_is_closed(node: Node, request_bytes: bytes) -> None:
    with others_undisturbed(node), socket.create_connection((HOST, node.ws_port), raw.TIMEOUT) as sock:
        answer = b""
        try:
            sock.sendall(request_bytes)
            while data := sock.recv(65536):
                answer += data
        except ConnectionError:
            pass
    assert b"101" not in answer.partition(b"\r\n")[0]


# --- frames and packets ------------------------------------------------------------------


def test_a_packet_may_be_split_over_frames(client: WebSocketClient, user: str) -> None:
    topic = f"users/{user}/inbox"
    for packet in (
        raw.connect("split", user, password(user)),
        raw.subscribe(1, (topic, 1)),
        raw.publish(topic, b"in pieces", 1, 7),
    ):
        for position in range(len(packet)):
            client.send(packet[position : position + 1])
    assert client.expect(CONNACK).body == b"\x00\x00"
    assert client.expect(SUBACK).body == b"\x00\x01\x01"
    got = [client.receive(), client.receive()]
    assert {packet.type for packet in got} == {PUBACK, PUBLISH}
    (message,) = [packet.body for packet in got if packet.type == PUBLISH]
    assert json.loads(message[2 + len(topic) + 2 :])["content"] == "in pieces"


def test_a_frame_may_hold_several_packets_and_a_part_of_the_next(client: WebSocketClient, user: str) -> None:
    topic = f"users/{user}/inbox"
    publish = raw.publish(topic, b"across", 0)
    client.send(
        raw.connect("several", user, password(user)) + raw.subscribe(1, (topic, 1)) + PINGREQ + publish[:5]
    )
    assert [client.receive().type for _ in range(3)] == [CONNACK, SUBACK, PINGRESP]
    client.send(publish[5:] + PINGREQ)
    got = [client.receive(), client.receive()]
    assert {packet.type for packet in got} == {PUBLISH, PINGRESP}


def test_fragments_make_a_message_with_control_frames_between(client: WebSocketClient, user: str) -> None:
    packet = raw.connect("fragments", user, password(user))
    client.send_frames(
        binary(packet[:3], fin=False),
        Frame(Opcode.PING, b"between"),
        continuation(b"", fin=False),
        continuation(packet[3:9], fin=False),
        Frame(Opcode.PONG, b"nobody asked"),
        continuation(packet[9:]),
        binary(PINGREQ[:1], fin=False),
        continuation(PINGREQ[1:]),
    )
    assert client.expect(CONNACK).body == b"\x00\x00"
    client.expect(PINGRESP)


def test_a_large_packet_comes_and_goes(client: WebSocketClient, user: str) -> None:
    login(client, user)
    content = "x" * 200_000
    client.send(raw.publish(f"users/{user}/inbox", content.encode(), 0))
    assert json.loads(client.message()[1])["content"] == content


def test_ping_frames_are_answered(client: WebSocketClient, user: str) -> None:
    assert client.ws.ping(b"before CONNECT").wait(raw.TIMEOUT)
    login(client, user)
    assert client.ws.ping(b"\x00" * 125).wait(raw.TIMEOUT)
    assert client.ws.ping(b"").wait(raw.TIMEOUT)


def test_closing_the_websocket_ends_the_connection_and_sends_the_will(node: Node, user: str) -> None:
    with RawClient(node.port) as heir, WebSocketClient(node) as dying:
        heir_user = node.user("heir")
        login(heir, heir_user)
        dying.login("dying", user, password(user), will=(f"users/{heir_user}/inbox", b"gone", 1, False))
        dying.ws.close()
        assert dying.ws.close_code == 1000
        assert json.loads(heir.message()[1])["content"] == "gone"


# --- offences ----------------------------------------------------------------------------

TOO_LARGE = (10 * 1024 * 1024).to_bytes(8, "big")
OFFENCES = {
    "text": lambda: Frame(Opcode.TEXT, PINGREQ),  # [MQTT-6.0.0-1]
    "empty text": lambda: Frame(Opcode.TEXT, b""),
    "fragmented text": lambda: Frame(Opcode.TEXT, PINGREQ, fin=False),
    "10 MB announced": lambda: b"\x82\xff" + TOO_LARGE + MASK,
    "10 MB fragment announced": lambda: b"\x02\xff" + TOO_LARGE + MASK,
    "2^63 bytes announced": lambda: b"\x82\xff" + b"\xff" * 8 + MASK,
    "10 MB": lambda: binary(bytes(10 * 1024 * 1024)),
    "not masked": lambda: b"\x82" + bytes((len(PINGREQ),)) + PINGREQ,  # RFC 6455, 5.1
    "reserved bit": lambda: b"\xc2\x82" + MASK + b"\xc1\x02",  # 5.2
    "reserved opcode": lambda: b"\x83\x80" + MASK,  # 5.2
    "continuation of nothing": lambda: continuation(PINGREQ),  # 5.4
    "long ping": lambda: b"\x89\xfe\x00\x7e" + MASK + bytes(126),  # 5.5
    "fragmented ping": lambda: b"\x09\x80" + MASK,  # 5.5
    "malformed packet": lambda: binary(b"\xf0\x00"),  # [MQTT-4.8.0-1]
}


@pytest.mark.parametrize("offence", OFFENCES)
def test_an_offence_closes_the_connection(
    node: Node, client: WebSocketClient, user: str, offence: str
) -> None:
    with others_undisturbed(node):
        login(client, user)
        with suppress(OSError):  # refused before it was all sent
            client.send_frames(OFFENCES[offence]())
        assert client.is_closed()


@pytest.mark.parametrize("offence", ["text", "10 MB", "10 MB announced"])
def test_an_offence_before_connect_closes_the_connection(
    node: Node, client: WebSocketClient, offence: str
) -> None:
    with others_undisturbed(node):
        with suppress(OSError):
            client.send_frames(OFFENCES[offence]())
        assert client.is_closed()


@pytest.mark.parametrize(
    "offence", ["text", "malformed packet", "10 MB announced", "not masked", "long ping"]
)
def test_an_offence_makes_one_line_in_the_log(
    node: Node, client: WebSocketClient, user: str, offence: str
) -> None:
    login(client, user)
    before = len(node.log())
    client.send_frames(OFFENCES[offence]())
    assert client.is_closed()

    def lines() -> list[str]:
        return [line for line in node.log()[before:].splitlines() if "mqttjs" not in line]

    wait_for(lines, "a line in the log")
    with others_undisturbed(node):
        pass  # what else it says about the offence is there by now
    assert len(lines()) == 1


def test_a_message_begun_within_another_is_an_offence(client: WebSocketClient, user: str) -> None:
    login(client, user)
    client.send_frames(binary(PINGREQ[:1], fin=False), binary(PINGREQ[1:]))  # RFC 6455, 5.4
    assert client.is_closed()


@pytest.mark.parametrize("first", ["text", "malformed packet"])
def test_nothing_after_an_offence_is_taken(
    node: Node, client: WebSocketClient, user: str, first: str
) -> None:
    login(client, user)
    late = raw.publish(f"users/{user}/inbox", b"late", 1, 5)
    client.send_frames(OFFENCES[first](), binary(late), continuation(late))
    assert client.is_closed()
    assert node.history(f"p:{user}:{user}") == []


def test_fragments_add_up_to_a_packet_within_the_limit_or_are_refused(
    node: Node, client: WebSocketClient, user: str
) -> None:
    login(client, user)
    packet = raw.publish(f"users/{user}/inbox", bytes(10 * 1024 * 1024), 1, 5)
    pieces = [packet[at : at + 65536] for at in range(0, len(packet), 65536)]
    with others_undisturbed(node):
        with suppress(OSError):  # refused before it was all sent
            client.send_frames(
                binary(pieces[0], fin=False), *(continuation(p, fin=False) for p in pieces[1:])
            )
        assert client.is_closed()


# --- limits of a listener ----------------------------------------------------------------


def test_a_client_that_does_not_connect_in_time_is_closed(make_node: Callable[..., Node]) -> None:
    node = make_node("limits.connect_timeout=1.0").start()
    with (
        socket.create_connection((HOST, node.ws_port), raw.TIMEOUT) as half,
        others_undisturbed(node),
        WebSocketClient(node) as silent,
    ):
        half.sendall(b"GET /mqtt HTTP/1.1\r\nHost: here\r\n")
        assert silent.ws.ping(b"here still").wait(raw.TIMEOUT)
        assert silent.is_closed()
        assert half.recv(4096).partition(b"\r\n")[0].split(b" ")[1:2] in ([], [b"408"], [b"400"])


def test_the_number_of_connections_is_limited(make_node: Callable[..., Node]) -> None:
    node = make_node("listeners.ws.max_connections=1").start()
    user = node.user("first")
    with WebSocketClient(node) as first:
        login(first, user)
        with pytest.raises((WebSocketException, OSError)):  # it is closed before the handshake
            WebSocketClient(node)
        first.send(PINGREQ)
        first.expect(PINGRESP)
        first.ws.close()
    with WebSocketClient(node) as third:
        login(third, user)


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_client_that_ends_without_a_close_frame_is_gone(node: Node, user: str, how: int) -> None:
    """As a browser does that is killed. It is noticed at once, not by the next ping."""
    before = node.stats()["clients_connected"]
    with WebSocketClient(node) as client:
        login(client, user)
        assert node.stats()["clients_connected"] == before + 1
        client.ws.socket.shutdown(how)
        wait_for(lambda: node.stats()["clients_connected"] == before, "the client to be gone", 5)
