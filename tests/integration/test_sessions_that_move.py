"""Sessions that move between the nodes of a cluster with their users."""

import contextlib
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from broker.wire.encoder import pubcomp, pubrec, pubrel
from tests.integration.node import Node, password
from tests.integration.pair import Pair
from tests.integration.raw import RawClient, connect, packet, publish, subscribe

LONG = [pytest.mark.long, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"), ['topics.open=["open/#"]', "limits.session_expiry=3600"])
    yield made.start()
    made.stop()


class Hopper:
    """A client with QoS 2 that keeps packet ids it has received (MQTT 3.1.1, figure 4.3, second method), on
    one node after the other. `had`: log or topic -> what came, in its order, without repetitions."""

    def __init__(self, pair: Pair, user: str) -> None:
        self._nodes = itertools.cycle(pair.nodes)
        self.user = user
        self.token = pair.nodes[0].token(user)
        self.had: dict[str, list[int]] = {}
        self.held: set[int] = set()
        self.client: RawClient

    def connect(self) -> bool:
        """To the other node. The earlier connection stays: it is for the node to end it."""
        self.client = RawClient(next(self._nodes).port)
        return self.client.login("hopper", self.user, self.token, clean=False)

    def read(self) -> bool:
        received = self.client.receive()
        if received is None:
            return False
        if received.type == 6:
            packet_id = int.from_bytes(received.body[:2], "big")
            self.held.discard(packet_id)
            self.client.send(pubcomp(packet_id))
            return True
        if received.type == 3:
            self._take(received.first >> 1 & 3, received.body)
        return True

    def _take(self, qos: int, body: bytes) -> None:
        size = int.from_bytes(body[:2], "big")
        topic, packet_id = body[2 : 2 + size].decode(), int.from_bytes(body[2 + size : 4 + size], "big")
        assert qos == 2
        if packet_id not in self.held:
            self.held.add(packet_id)
            payload = json.loads(body[4 + size :])
            number = payload["offset"] if isinstance(payload, dict) else payload
            self.had.setdefault(topic, []).append(number)
        self.client.send(pubrec(packet_id))


class Traffic:
    """Publishes with QoS 2 to topics, one after the other, until it is stopped."""

    def __init__(self, node: Node, user: str, *topics: str) -> None:
        self.sent: Counter[str] = Counter()
        self._topics = topics
        self._node, self._user = node, user
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with RawClient(self._node.port) as client:
            client.login(f"writer-{self._user}", self._user, password(self._user))
            while not self._stopped.wait(0.005):
                for topic in self._topics:
                    client.send(publish(topic, b"%d" % (self.sent[topic] + 1), 2, 1))
                    client.expect(5)
                    client.send(pubrel(1))
                    client.expect(7)
                    self.sent[topic] += 1

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


@pytest.mark.parametrize("hops", [40, pytest.param(1000, marks=LONG)])
def test_a_session_hops_under_traffic_and_misses_nothing(pair: Pair, hops: int) -> None:
    one, two = pair.nodes
    hopper = Hopper(pair, one.user("hopper"))
    inbox, notes = f"users/{hopper.user}/inbox", f"open/{hopper.user}"
    hopper.connect()
    hopper.client.send(subscribe(1, (inbox, 2), (notes, 2)))
    hopper.client.expect(9)
    writers = [one.user("writer"), two.user("writer")]
    notes_of = [f"{notes}/1", f"{notes}/2"]
    hopper.client.send(subscribe(2, *((each, 2) for each in notes_of)))
    hopper.client.expect(9)
    traffic = [
        Traffic(node, user, inbox, note)
        for node, user, note in zip(pair.nodes, writers, notes_of, strict=True)
    ]
    try:
        for hop in range(hops):
            old = hopper.client
            for _ in range(5):
                hopper.read()
            if hop % 3 == 2:
                old.socket.close()  # else it is taken over
            assert hopper.connect(), "the session is there"
            old.socket.close()
    finally:
        for each in traffic:
            each.stop()
    sent = {inbox: sum(each.sent[inbox] for each in traffic)}
    for each, note in zip(traffic, notes_of, strict=True):
        sent[note] = each.sent[note]
    hopper.client.socket.settimeout(15)
    with contextlib.suppress(TimeoutError):
        while any(len(hopper.had.get(topic, ())) < count for topic, count in sent.items()):
            assert hopper.read(), "connection closed"
    hopper.client.socket.close()
    for topic, count in sent.items():
        came = Counter(hopper.had.get(topic, ()))
        assert not [number for number, times in came.items() if times > 1], f"{topic}: came twice"
        assert not set(range(1, count + 1)) - came.keys(), f"{topic}: missing, of {count}"
    assert hopper.had[inbox] == sorted(hopper.had[inbox]), "the entries of a log come in their order"


@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=LONG)])
def test_two_nodes_claim_a_session_at_once_and_one_has_it(pair: Pair, rounds: int) -> None:
    user = pair.nodes[0].user("claimed")
    token = pair.nodes[0].token(user)
    writer = pair.nodes[0].user("writer")
    with RawClient(pair.nodes[0].port) as first:
        first.login("phone", user, token, clean=False)
        first.send(subscribe(1, (f"users/{user}/inbox", 1)))
        first.expect(9)
    with RawClient(pair.nodes[0].port) as sender:
        sender.login("writer", writer, password(writer))
        for round_ in range(1, rounds + 1):
            clients = [RawClient(node.port) for node in pair.nodes]
            barrier = threading.Barrier(2)
            left: list[RawClient] = []
            about = user, token, barrier, left
            threads = [threading.Thread(target=_claim, args=(each, *about)) for each in clients]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            assert len(left) == 1, f"round {round_}: {len(left)} have the session"
            (winner,) = left
            winner.socket.settimeout(20)
            sender.send(publish(f"users/{user}/inbox", b"%d" % round_, 1, 1))
            sender.expect(4)
            topic, payload, *_ = winner.message()
            assert (topic, json.loads(payload)["content"]) == (f"users/{user}/inbox", str(round_))
            winner.send(packet(0xC0))
            winner.expect(13)
            for client in clients:
                client.socket.close()


def _claim(
    client: RawClient, user: str, token: str, barrier: threading.Barrier, left: list[RawClient]
) -> None:
    """Connect, and note the client if its connection lasts."""
    client.socket.settimeout(1)
    barrier.wait()
    client.send(connect("phone", user, token, clean=False))
    try:
        while client.receive() is not None:
            pass
    except TimeoutError:
        left.append(client)
