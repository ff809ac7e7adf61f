"""No client can flood the log, and a refusal's line says whose it is."""

import json
from collections.abc import Callable

import grpc
import httpx
import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.node import Node, password
from tests.integration.raw import RawClient, connect, publish

MakeNode = Callable[..., Node]

MOST = 10
"""`log.repeats` as it comes."""


def lines(node: Node, *words: str) -> list[str]:
    """The lines of the log that have all these words, without those that sum others up."""
    return [
        line
        for line in node.log().splitlines()
        if all(word in line for word in words) and "more lines in the last minute" not in line
    ]


def summed_up(node: Node, *words: str) -> int:
    """For how many lines with these words the summaries of the log stand."""
    found = [line for line in node.log().splitlines() if all(word in line for word in words)]
    parts = [line.partition(" more lines in the last minute") for line in found]
    return sum(int(before.rpartition(" ")[2]) for before, about, _ in parts if about)


def test_refused_publishes_are_summed_up(make_node: MakeNode) -> None:
    node = make_node().start()
    alice, bob = node.user("alice"), node.user("bob")
    with RawClient(node.port) as client:
        client.login("alices-phone", alice, password(alice))
        address = "{}:{}".format(*client.socket.getsockname())
        for number in range(1, 301):
            payload = json.dumps({"content": "x", "client_msg_id": f"c-{number}"}).encode()
            client.send(publish("groups/none", payload, 1, number))
        for _ in range(300):
            client.expect(4)
    with RawClient(node.port) as client:
        client.login("d", bob, password(bob))
        client.send(publish("groups/none", b"x", 1, 1))
        client.expect(4)
    assert len(lines(node, f"refused {alice} publishing")) == MOST
    assert len(lines(node, f"refused {bob} publishing")) == 1
    first = lines(node, f"refused {alice} publishing")[0]
    for word in ("alices-phone", address, "c-1", "not_member", "groups/none"):
        assert word in first
    node.stop()
    assert summed_up(node, f"refused {alice} publishing") == 300 - MOST


def test_refused_connects_are_summed_up(make_node: MakeNode) -> None:
    node = make_node().start()
    for number in range(100):
        with RawClient(node.port) as client:
            client.send(connect(f"client-{number}", f"nobody-{number}", "guess"))
            assert client.expect(2).body[1]
    with RawClient(node.port) as client:
        client.send(connect("other", None, None))
        client.expect(2)
        assert client.is_closed()
    first, *more = lines(node, "refused: authentication", "127.0.0.1")
    assert len(more) == MOST - 1
    assert "nobody-0" in first
    assert "client-0" in first
    node.stop()
    assert summed_up(node, "refused: authentication") == 101 - MOST


def test_protocol_errors_are_summed_up(make_node: MakeNode) -> None:
    node = make_node("log.repeats=3").start()
    for _ in range(50):
        with RawClient(node.port) as client:
            client.send(b"\xc0\0")  # a PINGREQ before CONNECT
            assert client.is_closed()
    assert len(lines(node, "protocol error")) == 3
    node.stop()
    assert summed_up(node, "protocol error") == 47


def test_refused_logins_and_calls_are_summed_up(make_node: MakeNode) -> None:
    node = make_node().start()
    with httpx.Client(base_url=node.http) as client:
        for number in range(30):
            body = {"user_id": f"nobody-{number}", "password": "guess", "device": "tablet"}
            assert client.post("/api/login", json=body).status_code == 401
    for _ in range(30):
        with pytest.raises(grpc.RpcError):
            node.admin.Stats(pb.StatsRequest(), metadata=(("authorization", "Bearer wrong"),))
    logins = lines(node, "login of nobody", "127.0.0.1", "tablet", "refused")
    assert len(logins) == MOST
    calls = lines(node, "gRPC: /im.AdminService/Stats refused", "127.0.0.1")
    assert len(calls) == MOST
    node.stop()
    assert summed_up(node, "login of nobody") == 20
    assert summed_up(node, "gRPC: /im.AdminService/Stats refused") == 20
