"""Guessing passwords: one count for every way in, and nobody else waits."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx

from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, connect

MakeNode = Callable[..., Node]

ELSEWHERE = "127.0.0.2"
WRONG, LATER = 5, 3
"""The codes of CONNACK: not authorized; server unavailable, try again later."""


def mqtt(node: Node, user: str, secret: str, source: str = "127.0.0.1") -> int:
    """CONNECT; returns the code of CONNACK."""
    with RawClient(node.port, source) as client:
        client.send(connect("c", user, secret))
        return client.expect(2).body[1]


def http(node: Node, user: str, secret: str) -> int:
    body = {"user_id": user, "password": secret}
    return httpx.post(f"{node.http}/api/login", json=body).status_code


def test_what_fails_over_mqtt_counts_over_http_too(make_node: MakeNode) -> None:
    node = make_node("http.failures_per_user=5").start()
    alice, bob = node.user("alice"), node.user("bob")
    assert [mqtt(node, alice, f"guess {number}") for number in range(8)] == [WRONG] * 5 + [LATER] * 3
    assert mqtt(node, alice, password(alice)) == LATER
    assert http(node, alice, password(alice)) == 429
    assert mqtt(node, bob, password(bob)) == 0
    assert mqtt(node, alice, node.token(alice)) == 0  # nobody guesses a token
    stats = node.stats()
    assert stats["refused.connect_not_authorized"] == 5
    assert stats["refused.connect_rate"] == 4
    assert stats["refused.login_rate"] == 1


def test_what_fails_over_http_counts_over_mqtt_too(make_node: MakeNode) -> None:
    node = make_node("http.failures_per_user=5").start()
    alice = node.user("alice")
    assert [http(node, alice, f"guess {number}") for number in range(6)] == [401] * 5 + [429]
    assert mqtt(node, alice, password(alice)) == LATER


def test_one_address_that_tries_many_users(make_node: MakeNode) -> None:
    node = make_node("http.failures_per_address=5").start()
    alice, bob = node.user("alice"), node.user("bob")
    assert mqtt(node, alice, password(alice)) == 0
    codes = [mqtt(node, f"nobody-{number}", "guess") for number in range(7)]
    assert codes == [WRONG] * 5 + [LATER] * 2
    assert mqtt(node, bob, password(bob)) == LATER
    assert mqtt(node, bob, password(bob), ELSEWHERE) == 0
    assert mqtt(node, alice, password(alice)) == 0  # who has logged in from here before


def test_the_address_of_a_trusted_proxy_is_not_limited(make_node: MakeNode) -> None:
    node = make_node("http.failures_per_address=3", 'http.trusted_proxies=["127.0.0.1"]').start()
    alice = node.user("alice")
    assert [mqtt(node, f"nobody-{number}", "guess") for number in range(9)] == [WRONG] * 9
    assert mqtt(node, alice, password(alice)) == 0
    codes = [mqtt(node, f"nobody-{number}", "guess", ELSEWHERE) for number in range(5)]
    assert codes == [WRONG] * 3 + [LATER] * 2


def test_devices_that_come_back_at_once_do_not_count(make_node: MakeNode) -> None:
    node = make_node("http.failures_per_user=2", "http.failures_per_address=2").start()
    alice = node.user("alice")
    with ExitStack() as stack:
        devices = [stack.enter_context(RawClient(node.port)) for _ in range(100)]
        for number, device in enumerate(devices):
            device.send(connect(f"device-{number}", alice, password(alice)))
        assert {device.expect(2).body[1] for device in devices} == {0}


def test_a_flood_of_wrong_passwords_delays_nobody_elsewhere(make_node: MakeNode) -> None:
    """400 at once, each for a user of its own, from one address: before, they locked everybody out."""
    node = make_node("http.failures_per_address=100000").start()
    others = [node.user("other") for _ in range(5)]
    stop = threading.Event()

    def flood(attacker: int) -> None:
        number = 0
        with ExitStack() as stack:
            while not stop.is_set():
                clients = [stack.enter_context(RawClient(node.port, ELSEWHERE)) for _ in range(50)]
                for client in clients:
                    number += 1
                    client.send(connect("c", f"nobody-{attacker}-{number}", "guess"))
                for client in clients:
                    client.expect(2)
                stack.close()

    threads = [threading.Thread(target=flood, args=(attacker,)) for attacker in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: node.stats().get("refused.connect_not_authorized", 0) > 10, "the flood", 10)
    waited = []
    for user in others:
        begin = time.monotonic()
        assert mqtt(node, user, password(user)) == 0
        waited.append(time.monotonic() - begin)
    stop.set()
    for thread in threads:
        thread.join()
    assert max(waited) < 2, waited
