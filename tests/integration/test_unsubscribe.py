"""UNSUBSCRIBE completes what is in flight [MQTT-3.10.4-3], on later connections too, whatever the topic."""

import json
from collections.abc import Callable

import pytest

from bridge.grpc_api import im_admin_pb2 as pb
from broker.wire.encoder import puback, pubcomp, pubrec, pubrel
from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, packet, publish, subscribe, text

MakeNode = Callable[..., Node]
OPEN = "open/notes"
_PINGREQ = packet(0xC0)


class Phone:
    """A persistent session that reads and answers by hand."""

    def __init__(self, node: Node, user: str) -> None:
        self._node = node
        self._user = user
        self.connect()

    def __enter__(self) -> "Phone":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.socket.close()

    def connect(self) -> None:
        self.client = RawClient(self._node.port)
        self.client.login("phone", self._user, password(self._user), clean=False)

    def vanish(self) -> None:
        self.client.socket.close()
        wait_for(lambda: self._node.stats()["clients_connected"] == 0, "the node to notice")

    def subscribe(self, topic: str, qos: int) -> None:
        self.client.send(subscribe(1, (topic, qos)))
        self.client.expect(9)

    def unsubscribe(self, topic: str) -> list[tuple[int, int, bool]]:
        """Returns what came before the UNSUBACK, as `published` does."""
        self.client.send(packet(0xA2, b"\0\2" + text(topic)))
        return self._until(11)

    def published(self) -> list[tuple[int, int, bool]]:
        """The number, packet id and DUP flag of each PUBLISH that has come."""
        self.client.send(_PINGREQ)
        return self._until(13)

    def _until(self, kind: int) -> list[tuple[int, int, bool]]:
        came = []
        while (received := self.client.expect_any()).type != kind:
            assert received.type == 3, f"{received}: a PUBREL without its PUBREC"
            size = int.from_bytes(received.body[:2], "big")
            payload = json.loads(received.body[4 + size :])
            number = payload["content"] if isinstance(payload, dict) else payload
            packet_id = int.from_bytes(received.body[2 + size : 4 + size], "big")
            came.append((int(number), packet_id, bool(received.first & 8)))
        return came

    def several(self, count: int) -> list[tuple[int, int, bool]]:
        """As `published`, once so many have come."""
        came: list[tuple[int, int, bool]] = []

        def all_came() -> bool:
            came.extend(self.published())
            return len(came) >= count

        wait_for(all_came, f"{count} messages", 8)
        return came

    def complete(self, packet_ids: list[int], qos: int) -> list[tuple[int, int, bool]]:
        """Returns what came meanwhile."""
        came = []
        for packet_id in packet_ids:
            if qos == 1:
                self.client.send(puback(packet_id))
            else:
                self.client.send(pubrec(packet_id))
                came += self._until(6)
                self.client.send(pubcomp(packet_id))
        return came + self.published()


def write(node: Node, user: str, topic: str, *numbers: int) -> None:
    with RawClient(node.port) as client:
        client.login("writer", user, password(user))
        for number in numbers:
            client.send(publish(topic, b"%d" % number, 2, number))
            client.expect(5)
            client.send(pubrel(number))
            client.expect(7)
    wait_for(lambda: node.stats()["clients_connected"] < 2, "the writer to be gone")


@pytest.fixture(params=["group", "inbox", "open"])
def place(request: pytest.FixtureRequest, make_node: MakeNode) -> tuple[Node, str, str, str]:
    """A node, a reader, a writer and a topic between them."""
    node = make_node('topics.open=["open/#"]', "limits.max_inflight=10").start()
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(alice, bob)
    topics = {"group": f"groups/{group}", "inbox": f"users/{alice}/inbox", "open": OPEN}
    return node, alice, bob, topics[request.param]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("when", ["at once", "back", "before it went"])
def test_what_was_begun_is_completed(place: tuple[Node, str, str, str], qos: int, when: str) -> None:
    node, alice, bob, topic = place
    with Phone(node, alice) as phone:
        phone.subscribe(topic, qos)
        write(node, bob, topic, *range(1, 16))  # more than the window takes
        begun = [(number, packet_id) for number, packet_id, _ in phone.several(10)]
        assert [number for number, _ in begun] == list(range(1, 11))
        came = []
        if when == "back":
            phone.vanish()
            phone.connect()
            came = phone.unsubscribe(topic)
        else:
            assert phone.unsubscribe(topic) == []
        if when == "before it went":
            phone.vanish()
            phone.connect()
        if when != "at once":
            came += phone.several(10 - len(came)) if len(came) < 10 else []
            assert [(number, packet_id) for number, packet_id, _ in came][:10] == begun
            assert all(dup for *_, dup in came[:10])
        late = phone.complete([packet_id for _, packet_id in begun], qos)
        write(node, bob, topic, 16)
        queued = list(range(11, 16)) if topic == OPEN else []
        late += phone.several(len(queued) - len(late))  # packet ids may have to be reserved on disk first
        assert [number for number, *_ in late] == queued, "only what was queued before may come"
        if topic != OPEN:
            phone.subscribe(topic, qos)
            write(node, bob, topic, *range(17, 27))
            assert [number for number, *_ in phone.several(10)] == list(range(17, 27)), "the window is whole"
            phone.vanish()
            assert node.stats()["sessions_catching_up"] == 0


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_begun_of_a_group_that_was_left_is_not_sent(make_node: MakeNode, qos: int) -> None:
    """Without the right to read it, nothing is sent again."""
    node = make_node("limits.max_inflight=10").start()
    alice, bob = node.user("alice"), node.user("bob")
    group = node.group(bob, alice)
    topic = f"groups/{group}"
    with Phone(node, alice) as phone:
        phone.subscribe(topic, qos)
        write(node, bob, topic, 1, 2)
        assert len(phone.several(2)) == 2
        assert phone.unsubscribe(topic) == []
        phone.vanish()
        node.call("RemoveGroupMembers", pb.GroupMembersRequest(group_id=group, user_ids=[alice]))
        phone.connect()
        phone.client.send(_PINGREQ)
        while (received := phone.client.expect_any()).type != 13:
            assert received.type == 6
