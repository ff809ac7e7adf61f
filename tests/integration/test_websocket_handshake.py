"""The WebSocket handshake (RFC 6455, chapter 4), and the path and subprotocol of MQTT."""

import socket

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as open_websocket

from tests.integration import raw
from tests.integration.node import HOST, Node
from tests.integration.websocket import (
    binary,
    others_undisturbed,
    websocket,
)

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
