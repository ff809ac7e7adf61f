"""When a client whose network is dead is given up."""

import socket
from collections.abc import Iterator

import pytest

from broker.config import Limits
from broker.net.reachability import Asking, Reachability, is_unreachable, keep_asking
from broker.net.websocket import CHECKS
from tests.integration.network import cut

TICK = 1.0
"""Seconds between calls of the timer; a deadline is seen within two."""


def longest(limits: Limits) -> dict[str, float]:
    """By way, how many seconds a client may be gone before it is known."""
    seconds = limits.unreachable_after
    asking = Asking.within(seconds)
    looks = max(int(seconds / 10), 1) * TICK
    return {
        "nothing is sent": asking.idle + asking.count * asking.interval,
        "something is sent": seconds + 2 * looks,
        "WebSocket": CHECKS * (seconds / CHECKS + 2 * TICK),
    }


@pytest.mark.parametrize("way", ["nothing is sent", "something is sent", "WebSocket"])
def test_as_shipped_a_client_is_offline_within_a_minute(way: str) -> None:
    limits = Limits()
    assert longest(limits)[way] + limits.presence_grace + TICK <= 60


@pytest.mark.parametrize("seconds", [3.0, 5.0, 10.0, 40.0, 59.9, 3600.0])
def test_a_silent_client_is_asked_twice(seconds: float) -> None:
    asking = Asking.within(seconds)
    assert asking.count == 2
    assert asking.idle + asking.count * asking.interval == int(seconds)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection, that of the client first."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        keep_asking(listening, 10.0)
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with client, accepted:
            yield client, accepted


def test_accepted_connections_inherit_the_questions(pair: tuple[socket.socket, socket.socket]) -> None:
    _, accepted = pair
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert [accepted.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [6, 2, 2]


def test_who_has_acknowledged_everything_is_there(pair: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = pair
    accepted.sendall(b"x")
    assert client.recv(1) == b"x"
    assert not is_unreachable(accepted.fileno(), 0.0)


def test_who_acknowledges_nothing_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = pair
    cut(client)
    accepted.sendall(b"x")
    assert is_unreachable(accepted.fileno(), 0.0)
    assert not is_unreachable(accepted.fileno(), 60.0)


def test_a_file_that_is_closed_says_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    _, accepted = pair
    file = accepted.fileno()
    accepted.close()
    assert not is_unreachable(file, 0.0)
    assert not is_unreachable(-1, 0.0)


class Fake:
    """A connection."""

    def __init__(self, file: int, *, closed: bool = False) -> None:
        self.file = file
        self.closed = closed
        self.reasons: list[str] = []

    def close(self, reason: str) -> None:
        self.reasons.append(reason)
        self.closed = True


def test_every_connection_is_looked_at_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr("broker.net.reachability.is_unreachable", lambda file, _: looked.append(file))
    reachability = Reachability(40.0)
    connections = [Fake(file) for file in range(10)]
    counts = []
    for _ in range(4):
        reachability.tick(connections)
        counts.append(len(looked))
    assert counts == [3, 6, 9, 10]
    assert sorted(looked) == list(range(10))
    reachability.tick([])
    assert len(looked) == 10


def test_only_who_is_gone_is_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    client, accepted = pair
    cut(client)
    accepted.sendall(b"x")
    gone, here, ended = Fake(accepted.fileno()), Fake(client.fileno()), Fake(accepted.fileno(), closed=True)
    reachability = Reachability(0.0)
    reachability.tick([gone, here, ended])
    assert [each.reasons for each in (gone, here, ended)] == [["network timeout"], [], []]
