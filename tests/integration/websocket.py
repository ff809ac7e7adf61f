"""Clients over WebSocket, frame by frame."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_websocket

from tests.integration import raw
from tests.integration.node import HOST, Node, password
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
