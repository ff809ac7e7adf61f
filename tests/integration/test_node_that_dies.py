"""What a node of a cluster leaves when it dies or freezes, and what the nodes know of their devices."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from bridge.grpc_api import im_admin_pb2 as admin
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api import im_pb2_grpc as services
from tests.integration.node import Node, password, wait_for
from tests.integration.pair import Pair
from tests.integration.raw import RawClient, connect, subscribe

MOST_SECONDS = 60.0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path, ['topics.open=["open/#"]'])
    yield made.start()
    made.stop()


def status(node: Node, user: str) -> str:
    request = pb.GetPresenceRequest(user_ids=[user])
    with grpc.insecure_channel(node.grpc) as channel:
        stub = services.UserServiceStub(channel)
        return str(stub.GetPresence(request, metadata=node.metadata).presences[0].status)


def login(node: Node, user: str, client_id: str, **options: object) -> RawClient:
    client = RawClient(node.port)
    client.send(connect(client_id, user, password(user), clean=False, **options))  # type: ignore[arg-type]
    assert client.expect(2).body[1] == 0
    return client


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_users_of_a_node_that_is_gone_are_offline_within_a_minute(pair: Pair, number: int) -> None:
    one, two = pair.nodes
    alice, bob = one.user("alice"), one.user("bob")
    will = ("open/will", b"gone", 1, False)
    gone = login(two, alice, "phone", keep_alive=0, will=will)
    both = [login(node, bob, f"phone-{at}") for at, node in enumerate(pair.nodes)]
    watcher = login(one, bob, "watcher")
    watcher.send(subscribe(1, ("open/#", 1)))
    watcher.expect(9)
    wait_for(lambda: status(one, alice) == status(one, bob) == "online", "both to be online")
    assert two.process is not None
    two.process.send_signal(number)
    died = time.monotonic()
    watcher.socket.settimeout(MOST_SECONDS)
    assert watcher.message()[:2] == ("open/will", b"gone")
    wait_for(lambda: status(one, alice) == "offline", "alice to be offline", MOST_SECONDS)
    assert time.monotonic() - died < MOST_SECONDS
    assert status(one, bob) == "online"
    if number == signal.SIGSTOP:
        two.process.send_signal(signal.SIGCONT)
    for client in (gone, watcher, *both):
        client.socket.close()


def test_sessions_of_all_nodes_are_listed_kicked_and_counted(pair: Pair) -> None:
    one, two = pair.nodes
    alice = one.user("alice")
    clients = [login(node, alice, f"phone-{at}") for at, node in enumerate(pair.nodes)]
    login(one, alice, "tablet").socket.close()

    def listed(node: Node) -> list[tuple[str, str, str]]:
        answer = node.call("ListSessions", admin.ListSessionsRequest(user_id=alice))
        return [(each.client_id, each.state, each.node) for each in answer.sessions]

    expected = [("phone-0", "online", "node-0"), ("phone-1", "online", "node-1"), ("tablet", "away", "")]
    wait_for(lambda: listed(one) == listed(two) == expected, "the sessions of both nodes")
    assert two.stats()["clients_connected"] == 2
    assert one.call("KickUser", admin.KickUserRequest(user_id=alice)).connections == 2
    for client in clients:
        assert client.is_closed()
        client.socket.close()


def test_a_push_reaches_users_on_all_nodes(pair: Pair) -> None:
    one, _ = pair.nodes
    users = [one.user("pushed") for _ in pair.nodes]
    clients = []
    for node, user in zip(pair.nodes, users, strict=True):
        clients.append(login(node, user, "phone"))
        clients[-1].send(subscribe(1, (f"users/{user}/events", 1)))
        clients[-1].expect(9)
    with grpc.insecure_channel(one.grpc) as channel:
        request = pb.PushRequest(user_ids=[*users, "nobody"], payload=b'{"ring":1}')
        answer = services.UserServiceStub(channel).PushToUsers(request, metadata=one.metadata)
    assert (list(answer.reached), list(answer.missed)) == (users, ["nobody"])
    for client in clients:
        assert json.loads(client.message()[1]) == {"event": "push", "payload": {"ring": 1}}
        client.socket.close()
