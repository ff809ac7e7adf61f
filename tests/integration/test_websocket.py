"""MQTT over WebSocket (MQTT 3.1.1, chapter 6; RFC 6455), frame by frame."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode

from tests.integration import raw
from tests.integration.node import HOST, Node, password, wait_for
from tests.integration.raw import RawClient
from tests.integration.websocket import (
    CONNACK,
    MASK,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    WebSocketClient,
    binary,
    continuation,
    login,
    others_undisturbed,
)


@pytest.fixture
def client(node: Node) -> Iterator[WebSocketClient]:
    with WebSocketClient(node) as client:
        yield client


@pytest.fixture
def user(node: Node) -> str:
    return node.user("ws")


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
