"""Accounts, tokens and wills that change while devices connect: removed users are disconnected, others are
not."""

import json
import select
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import jwt
import pytest
from argon2 import PasswordHasher

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration.node import Node, password, wait_for
from tests.integration.raw import RawClient, connect, packet, publish, subscribe, text

MakeNode = Callable[..., Node]

NOT_AUTHORIZED, UNAVAILABLE = 5, 3
PINGREQ = packet(0xC0)
DISCONNECT = packet(0xE0)
DEVICES = 600
"""Three times the number of passwords that may wait for a check."""
PASSES = (30, 60, 120, 240)
"""What the check of a password costs (the usual is 2): half a second, one, two, four. The next is tried
where the test was too slow for the one before."""


def remove_user(node: Node, user: str) -> None:
    node.call("RemoveUser", pb.RemoveUserRequest(user_id=user))


def add_user(node: Node, user: str, secret: str | None = None) -> None:
    node.call("AddUser", pb.AddUserRequest(user_id=user, password=secret, reuse_id=True))


def disable(node: Node, user: str) -> None:
    node.call("SetUserDisabled", pb.SetUserDisabledRequest(user_id=user, disabled=True))


def connack(node: Node, user: str, secret: str, client_id: str = "d") -> int | None:
    """The code of the CONNACK; None if the connection is closed without one."""
    with RawClient(node.port) as client:
        client.send(connect(client_id, user, secret))
        answer = client.receive()
        return None if answer is None else answer.body[1]


def call(client: RawClient, user: str, method: str, **parameters: Any) -> Any:
    """The result of an RPC; the client is subscribed to its replies and nothing else."""
    client.send(publish(f"users/{user}/rpc/{method}", json.dumps(parameters).encode()))
    reply = json.loads(client.message()[1])
    assert reply["ok"], reply
    return reply["result"]


def stored(node: Node, *users: str) -> list[str]:
    """The stored messages of the private conversation of two users."""
    return [message["content"] for message in node.history(":".join(["p", *sorted(users)]))]


def crowd(node: Node, count: int, stack: ExitStack) -> list[RawClient]:
    """Connections, opened no faster than the node accepts them."""
    clients: list[RawClient] = []
    while len(clients) < count:
        clients += [stack.enter_context(RawClient(node.port)) for _ in range(50)]
        node.stats()
    return clients


class Queue:
    """Clients whose passwords are checked one after the other. They keep the check busy for about a
    second, so that later clients wait."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._user = node.user("queue")
        self._received = node.stats()["bytes_received"]
        self._waiting: list[RawClient] = []
        self.add_wrong(60)

    def add_wrong(self, count: int) -> None:
        for _ in range(count):
            self.add("", self._user, f"wrong {len(self._waiting)}")

    def add(self, client_id: str, user: str, secret: str, **options: Any) -> RawClient:
        client = RawClient(self._node.port)
        data = connect(client_id, user, secret, **options)
        client.send(data)
        self._received += len(data)
        self._waiting.append(client)
        return client

    def wait_taken(self) -> None:
        """Till the node has read all CONNECTs. It asks the directory about accounts in turn, so what
        is changed from here on is changed after these were read."""
        wait_for(lambda: self._node.stats()["bytes_received"] >= self._received, "the CONNECTs", 10)

    def finish(self) -> None:
        """Wait until all waiting clients are answered."""
        for client in self._waiting:
            if client.socket.fileno() >= 0:
                client.receive()

    def close(self) -> None:
        for client in self._waiting:
            client.socket.close()


@pytest.fixture
def queued(make_node: MakeNode) -> Iterator[tuple[Node, Queue]]:
    node = make_node().start()
    queue = Queue(node)
    yield node, queue
    queue.close()


def is_unanswered(client: RawClient) -> bool:
    return not select.select([client.socket], [], [], 0)[0]


# --- while a password is checked -----------------------------------------------------------


@pytest.mark.parametrize("change", [disable, remove_user])
def test_account_gone_while_its_password_is_checked(node: Node, change: Callable[[Node, str], None]) -> None:
    for passes in PASSES:
        alice = node.user("alice")
        set_cost(node, alice, time_cost=passes)
        received = node.stats()["bytes_received"]
        with RawClient(node.port) as client:
            data = connect("phone", alice, password(alice))
            client.send(data)
            wait_for(lambda: node.stats()["bytes_received"] >= received + len(data), "the CONNECT")  # noqa: B023
            change(node, alice)
            if not is_unanswered(client):
                continue  # before the account changed: nothing was tested
            assert client.expect(2).body[1] == NOT_AUTHORIZED
            assert client.is_closed()
        assert node.stats()["users_online"] == 0
        return
    raise AssertionError("the passwords were checked before the accounts changed: nothing is tested")


def test_connection_that_died_before_it_was_let_in_takes_nothing_over(queued: tuple[Node, Queue]) -> None:
    node, queue = queued
    alice = node.user("alice")
    dead = queue.add("phone", alice, password(alice))
    queue.wait_taken()
    assert is_unanswered(dead), "its password was checked before it died: nothing is tested"
    dead.socket.close()
    with RawClient(node.port) as client:
        client.login("phone", alice, node.token(alice))
        queue.add_wrong(6)
        queue.finish()  # and the password of the dead one was checked, too
        client.send(PINGREQ)
        client.expect(13)
        stats = node.stats()
        assert "disconnects.taken over by a new connection" not in stats
        assert stats["clients_connected"] == 1


# --- many at once --------------------------------------------------------------------------


def test_all_devices_return_at_once_after_a_restart(make_node: MakeNode) -> None:
    """A password is checked once, however many devices send it at the same time."""
    node = make_node().start()
    users = [node.user() for _ in range(8)]
    node.stop()
    node.start()
    with ExitStack() as stack:
        clients = crowd(node, DEVICES, stack)
        for number, client in enumerate(clients):
            user = users[number % 8]
            client.send(connect(f"d{number}", user, password(user)))
        codes = Counter(client.expect(2).body[1] for client in clients)
        assert codes == {0: DEVICES}
        assert node.stats()["clients_connected"] == DEVICES


def test_too_many_wrong_passwords_are_told_to_come_later(make_node: MakeNode) -> None:
    node = make_node().start()
    alice, bob, eve = node.user("alice"), node.user("bob"), node.user("eve")
    make_cheap(node, eve)
    assert connack(node, alice, password(alice)) == 0
    with ExitStack() as stack:
        clients = crowd(node, 600, stack)
        for number, client in enumerate(clients):
            client.send(connect("", eve, f"wrong {number}"))
        assert connack(node, alice, password(alice)) == 0  # checked before: needs no turn
        codes = Counter(client.expect(2).body[1] for client in clients)
    assert set(codes) == {UNAVAILABLE, NOT_AUTHORIZED}
    assert node.stats()["refused.connect_server_unavailable"] == codes[UNAVAILABLE]
    assert connack(node, bob, password(bob)) == 0


def make_cheap(node: Node, user: str) -> None:
    """Make the check of a user's password four times faster, so that tests end sooner."""
    set_cost(node, user, memory_cost=19456 // 4)


def set_cost(node: Node, user: str, time_cost: int = 2, memory_cost: int = 19456) -> None:
    """Set what the check of a user's password costs."""
    hashed = PasswordHasher(time_cost, memory_cost, parallelism=1).hash(password(user))
    with closing(sqlite3.connect(node.data_dir / "directory.db")) as database, database:
        database.execute("UPDATE users SET password_hash = ? WHERE user_id = ?", (hashed, user))


# --- users that are removed and come again ------------------------------------------------


def test_user_removed_and_added_at_once_is_out(make_node: MakeNode) -> None:
    node = make_node().start()
    alice = node.user("alice")
    removal, addition = pb.RemoveUserRequest(user_id=alice), pb.AddUserRequest(user_id=alice, reuse_id=True)
    with RawClient(node.port) as client:
        client.login("phone", alice, password(alice), clean=False)
        client.send(subscribe(1, (f"users/{alice}/inbox", 1)))
        client.expect(9)
        removed = node.admin.RemoveUser.future(removal, metadata=node.metadata)
        added = [node.admin.AddUser.future(addition, metadata=node.metadata) for _ in range(50)]
        removed.result()
        if all(one.exception() is not None for one in added):
            add_user(node, alice)
        assert client.is_closed()
    with RawClient(node.port) as client:
        has_session = client.login("phone", alice, node.token(alice), clean=False)
        assert not has_session, "it was the old one's"


@pytest.fixture
def recreated(node: Node) -> tuple[str, str, str]:
    """(alice, bob, the old alice's token): bob has written to alice, who was then removed and added
    again, with the password "brand-new"."""
    alice, bob = node.user("alice"), node.user("bob")
    with RawClient(node.port) as client:
        client.login("d", bob, password(bob))
        client.send(publish(f"users/{alice}/inbox", b"for the old alice", 1, 1))
        client.expect(4)
    token = node.token(alice)
    remove_user(node, alice)
    add_user(node, alice, "brand-new")
    return alice, bob, token


@pytest.mark.parametrize("method", ["RevokeTokens", "SetPassword"])
def test_tokens_of_the_second_in_which_all_are_ended(node: Node, method: str) -> None:
    """Tokens issued before it are refused, those issued after it are accepted."""
    alice = node.user("alice")
    wait_for(lambda: time.time() % 1 < 0.5, "a second's first half")
    before = node.token(alice)
    if method == "RevokeTokens":
        node.call(method, pb.RevokeTokensRequest(user_id=alice))
    else:
        node.call(method, pb.SetPasswordRequest(user_id=alice, password="brand-new"))
    after = node.token(alice)
    assert connack(node, alice, before) == NOT_AUTHORIZED
    assert connack(node, alice, after) == 0


def test_mail_of_a_removed_user_is_not_for_the_next(node: Node, recreated: tuple[str, str, str]) -> None:
    alice, bob, _ = recreated
    conversation = ":".join(["p", *sorted((alice, bob))])
    with RawClient(node.port) as client, RawClient(node.port) as writer:
        client.login("d", alice, "brand-new")
        client.send(subscribe(1, (f"users/{alice}/replies", 0)))
        client.expect(9)
        assert call(client, alice, "messages.sync")["messages"] == []
        assert call(client, alice, "messages.sync", cursors={f"users/{alice}/inbox": 0})["messages"] == []
        assert call(client, alice, "messages.history", conversation_id=conversation)["messages"] == []
        writer.login("d", bob, password(bob))
        writer.send(publish(f"users/{alice}/inbox", b"for the new alice", 1, 1))
        writer.expect(4)
        for result in (
            call(client, alice, "messages.sync"),
            call(client, alice, "messages.history", conversation_id=conversation),
            call(client, alice, "messages.history", conversation_id=conversation, after_seq=0),
        ):
            assert [message["content"] for message in result["messages"]] == ["for the new alice"]


def test_token_of_a_removed_user_is_not_for_the_next(node: Node, recreated: tuple[str, str, str]) -> None:
    alice, _, token = recreated
    assert connack(node, alice, token) == NOT_AUTHORIZED
    assert connack(node, alice, password(alice)) == NOT_AUTHORIZED
    assert connack(node, alice, node.token(alice)) == 0
    assert connack(node, alice, "brand-new") == 0


# --- wills ---------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [disable, remove_user])
def test_will_of_who_is_gone_is_not_published(node: Node, change: Callable[[Node, str], None]) -> None:
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    inbox = f"users/{bob}/inbox"
    with RawClient(node.port) as client, RawClient(node.port) as reader:
        reader.login("d", bob, password(bob))
        reader.send(subscribe(1, (inbox, 1)))
        reader.expect(9)
        client.login("d", alice, password(alice), will=(inbox, b"will", 1, False))
        change(node, alice)
        assert client.is_closed()
        with RawClient(node.port) as writer:  # what is asked and stored here comes after a will
            writer.login("d", carol, password(carol))
            writer.send(publish(inbox, b"after", 1, 1))
            writer.expect(4)
        assert json.loads(reader.message()[1])["content"] == "after"
        reader.send(PINGREQ)
        reader.expect(13)


@pytest.mark.parametrize("qos", [0, 1])
def test_publishes_of_a_client_that_leaves_at_once_are_stored(make_node: MakeNode, qos: int) -> None:
    """Publishes, DISCONNECT and the close in one go, while the first still waits for its permit."""
    node = make_node().start()
    alice, bob, carol = node.user("alice"), node.user("bob"), node.user("carol")
    inbox, will = f"users/{bob}/inbox", f"users/{carol}/inbox"
    with RawClient(node.port) as client:
        client.login("d", alice, password(alice), will=(will, b"will", 1, False))
        client.send(
            b"".join(publish(inbox, b"m%d" % number, qos, qos and number + 1) for number in range(20))
            + DISCONNECT
        )
    expected = [f"m{number}" for number in range(20)]
    wait_for(lambda: stored(node, alice, bob) == expected, "the messages", 5)
    wait_for(lambda: node.stats().get("disconnects.disconnected") == 1, "the DISCONNECT", 5)
    with RawClient(node.port) as client:  # what is published now comes after a will
        client.login("d", alice, password(alice))
        client.send(publish(will, b"after", 1, 1))
        client.expect(4)
    assert stored(node, alice, carol) == ["after"]


# --- tokens that end -----------------------------------------------------------------------


def test_token_that_ends_during_connect_leaves_no_device(make_node: MakeNode) -> None:
    node = make_node().start()
    alice = node.user("alice")
    with ExitStack() as stack:
        clients = crowd(node, 190, stack)  # fewer than `limits.sessions_per_user`
        wait_for(lambda: time.time() % 1 < 0.5, "a second's first half: a token ends at the next one's begin")
        token = node.token(alice, ttl=1)
        ends_at = jwt.decode(token, options={"verify_signature": False})["exp"]
        for number, client in enumerate(clients):
            # As the token ends, some are let in, some are being let in, some come too late.
            time.sleep(max(0.0, ends_at - 0.15 + number * 0.0008 - time.time()))
            client.send(connect(f"d{number}", alice, token, clean=False))
        for client in clients:
            while (answer := client.receive()) is not None:
                assert answer.body[1] in (0, NOT_AUTHORIZED)
    stats = node.stats()
    assert (stats["clients_connected"], stats["users_online"]) == (0, 0)
    with RawClient(node.port) as client:
        client.login("own", alice, password(alice))
        client.send(subscribe(1, (f"users/{alice}/presence", 0)))
        client.expect(9)
        presence = json.loads(client.message()[1])
        assert (presence["status"], presence["devices"]) == ("online", 1)


# --- names ---------------------------------------------------------------------------------

FORGED = "2026-01-01 00:00:00,000 WARNING broker.delivery.subscriptions: admin eve subscribed to $SYS"


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n"])
def test_nobody_writes_lines_into_the_log(node: Node, separator: str) -> None:
    bob = node.user("bob")
    forged = f"x{separator}{FORGED}"
    log = len(node.log())
    with RawClient(node.port) as client:
        client.login("d", bob, password(bob))
        topics = (forged, f"users/{forged}/inbox", f"groups/{forged}", f"users/{bob}/rpc/{forged}")
        for topic in topics:
            client.send(publish(topic, b"[" * 5000, 1, 1))
            client.expect(4)
        client.send(subscribe(2, *((topic, 1) for topic in topics)))
        client.expect(9)
        client.send(publish(f"{forged}/#", b""))
        assert client.is_closed()
    for data in (connect("c", forged, "wrong"), packet(0x10, text(forged)), connect(forged, bob, "wrong")):
        with RawClient(node.port) as client:
            client.send(data)
            while client.receive() is not None:
                pass
    lines = node.log()[log:].splitlines()
    assert sum("admin eve" in line for line in lines) >= 6
    assert not [line for line in lines if line.startswith("2026-01-01")]
