"""amqtt's plugins, its own and third-party ones, unchanged on this broker."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from bridge.grpc_api import im_admin_pb2 as pb
from tests.integration import raw
from tests.integration.node import DEADLINE, ROOT, Node, password, wait_for
from tests.integration.raw import RawClient

CONNACK, PUBACK, SUBACK, UNSUBACK, PINGRESP = 2, 4, 9, 11, 13
NOT_AUTHORIZED = 5
FAILURE = 0x80
SECONDS = 20.0

USERS = {"plugins.auth.UserAuthPlugin": {}}
RULES = {"plugins.auth.TopicRulesPlugin": {}}
PLATFORM = USERS | RULES
OPEN = {"open": ["open/#"]}

Start = Callable[..., Node]


@pytest.fixture
def configure(make_node: Callable[..., Node], tmp_path: Path) -> Start:
    """`configure(plugins, **sections)`: a node with its own config file, not started."""

    def configure(plugins: dict[str, Any], **sections: dict[str, Any]) -> Node:
        file = tmp_path / "broker.yaml"
        listeners = {"default": {"type": "tcp", "bind": "127.0.0.1:0"}}
        file.write_text(yaml.safe_dump({"listeners": listeners, "plugins": plugins} | sections))
        return make_node(config=file)

    return configure


@pytest.fixture
def start(configure: Start) -> Start:
    """As `configure`, but started and with the users alice, bob and the admin root."""

    def start(plugins: dict[str, Any], **sections: dict[str, Any]) -> Node:
        node = configure(plugins, **sections).start()
        for name, role in (("alice", "user"), ("bob", "user"), ("root", "admin")):
            add_user(node, name, role)
        return node

    return start


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes the module `third_party` of a source for nodes to import."""

    def write(source: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "third_party.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return write


def add_user(node: Node, name: str, role: str = "user") -> None:
    node.call("AddUser", pb.AddUserRequest(user_id=name, password=password(name), role=role))


def connack(node: Node, user: str | None, secret: str | None) -> int:
    """The answer to a login."""
    with RawClient(node.port) as client:
        client.send(raw.connect("", user, secret))
        return client.expect(CONNACK).body[1]


def login(node: Node, user: str, secret: str | None = None, *, clean: bool = True) -> RawClient:
    client = RawClient(node.port)
    client.login(f"device-of-{user}", user, secret or password(user), clean=clean)
    return client


def subscribe(client: RawClient, *filters: str) -> list[int]:
    client.send(raw.subscribe(1, *((topic_filter, 1) for topic_filter in filters)))
    return list(client.expect(SUBACK).body[2:])


def publish(client: RawClient, topic: str, payload: bytes, *, retain: bool = False) -> None:
    """Publish with QoS 1; returns when it is acknowledged."""
    client.send(raw.publish(topic, payload, 1, 1, retain))
    client.expect(PUBACK)


def expect_silence(client: RawClient) -> None:
    client.send(raw.packet(0xC0))
    client.expect(PINGRESP)


# --- amqtt.plugins -----------------------------------------------------------------------


@pytest.fixture
def file_auth(tmp_path: Path) -> dict[str, Any]:
    """FileAuthPlugin with the users alice and carol."""
    hasher = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=1024),))
    lines = [f"{name}:{hasher.hash(password(name))}\n" for name in ("alice", "carol")]
    file = tmp_path / "passwords"
    file.write_text("# users\n\n" + "".join(lines))
    return {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(file)}}


def test_a_password_file_says_who_may_connect(start: Start, file_auth: dict[str, Any]) -> None:
    node = start(file_auth | RULES, topics=OPEN)
    assert connack(node, "alice", password("alice")) == 0
    for user, secret in (
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", None),
        ("bob", password("bob")),  # the directory does not count here
        ("unknown", password("alice")),
        (None, None),
    ):
        assert connack(node, user, secret) == NOT_AUTHORIZED
    with login(node, "carol") as carol, login(node, "alice") as alice:
        assert subscribe(carol, "open/#", "users/carol/inbox", "users/alice/inbox") == [1, 1, FAILURE]
        publish(alice, "open/news", b"hello")
        assert carol.message()[:2] == ("open/news", b"hello")


def test_all_authentication_plugins_must_agree(start: Start, file_auth: dict[str, Any]) -> None:
    node = start(file_auth | PLATFORM)
    assert connack(node, "bob", password("bob")) == NOT_AUTHORIZED  # in the directory only
    assert connack(node, "carol", password("carol")) == NOT_AUTHORIZED  # in the file only
    assert connack(node, "alice", node.token("alice")) == NOT_AUTHORIZED  # which the file has not
    with login(node, "alice") as alice:
        publish(alice, "users/bob/inbox", b"hello")
    (message,) = node.history("p:alice:bob")
    assert (message["content"], message["from_user_id"]) == ("hello", "alice")


def test_without_authentication_plugins_nobody_may_connect(configure: Start) -> None:
    node = configure(RULES, topics=OPEN).start()
    assert connack(node, None, None) == NOT_AUTHORIZED
    assert connack(node, "anyone", "anything") == NOT_AUTHORIZED


def test_without_topic_plugins_only_the_server_publishes_to_sys(start: Start) -> None:
    node = start(USERS)
    with login(node, "root") as root, login(node, "alice") as alice:
        assert subscribe(root, "$SYS/made-up", "free") == [1, 1]
        alice.send(raw.publish("$SYS/made-up", b"forged", 0))
        with login(node, "bob") as bob:
            publish(bob, "free", b"hello")
        assert root.message()[:2] == ("free", b"hello")


def test_an_access_control_list_narrows_topics(start: Start) -> None:
    lists = {
        "publish_acl": {"alice": ["open/+/alice", "users/bob/inbox"]},
        "acl": {"alice": ["users/alice/events", "open/#"], "bob": ["open/read/#", "users/#"]},
    }
    plugin = {"amqtt.plugins.topic_checking.TopicAccessControlListPlugin": lists}
    node = start(PLATFORM | plugin, topics=OPEN)
    with login(node, "alice") as alice, login(node, "bob") as bob:
        assert subscribe(alice, "users/alice/events", "users/alice/inbox") == [1, FAILURE]
        codes = subscribe(bob, "open/read/#", "open/secret", "open/#", "users/bob/inbox", "users/alice/inbox")
        assert codes == [1, FAILURE, FAILURE, 1, FAILURE]  # the last one is by the platform's rules
        publish(alice, "open/read/alice", b"allowed")
        assert bob.message()[:2] == ("open/read/alice", b"allowed")
        for topic in ("open/read/mine", "users/alice/inbox"):
            alice.send(raw.publish(topic, b"refused", 1, 9))
            got = [alice.receive(), alice.receive()]
            assert {packet.type for packet in got} == {PUBACK, 3}
            (event,) = [json.loads(p.body[p.body.index(b"{") :]) for p in got if p.type == 3]
            assert (event["event"], event["code"], event["topic"]) == ("error", "not_authorized", topic)
        publish(alice, "users/bob/inbox", b"chat")
        assert json.loads(bob.message()[1])["content"] == "chat"
        expect_silence(bob)
    assert node.history("p:alice:alice") == []


def test_sys_topics_of_amqtt_have_real_numbers(start: Start) -> None:
    plugin = {"amqtt.plugins.sys.broker.BrokerSysPlugin": {"sys_interval": 1}}
    node = start(PLATFORM | plugin, topics=OPEN, sys={"interval": 0.0})
    seen: dict[str, str] = {}

    def read_until(topic: str, value: str) -> None:
        deadline = time.monotonic() + SECONDS
        while seen.get(topic) != value:
            assert time.monotonic() < deadline, seen
            name, payload, _, _ = root.message()
            seen[name.removeprefix("$SYS/broker/")] = payload.decode()

    with login(node, "root") as root, login(node, "alice") as alice, login(node, "bob") as bob:
        assert subscribe(alice, "$SYS/#") == [FAILURE]
        assert subscribe(root, "$SYS/#") == [1]
        assert subscribe(bob, "open/#") == [1]
        for number in range(5):
            publish(alice, f"open/{number}", b"reading")
            bob.message()
        read_until("messages/publish/received", "5")
        read_until("cpu/maximum", seen.get("cpu/maximum", "") or "0.0")
        assert seen["clients/connected"] == "3"
        assert seen["messages/subscriptions/count"] == "2"
        assert int(seen["messages/publish/sent"]) >= 5
        assert int(seen["messages/received"]) >= 3 + 3 + 5
        assert int(seen["load/bytes/received"]) > 5 * len("open/0reading")
        assert int(seen["load/bytes/sent"]) > 5 * len("open/0reading")
        assert seen["version"].startswith("aMQTT version ")
        bob.socket.close()
        read_until("clients/connected", "2")


# --- amqtt.contrib -----------------------------------------------------------------------

SECRET = "a secret of thirty-two characters"
JWT_PLUGINS = {
    "amqtt.contrib.jwt.UserAuthJwtPlugin": {"secret_key": SECRET, "user_claim": "who"},
    "amqtt.contrib.jwt.TopicAuthJwtPlugin": {
        "secret_key": SECRET,
        "publish_claim": "publish",
        "subscribe_claim": "subscribe",
        "receive_claim": "receive",
    },
}


def claims(user: str, secret: str = SECRET, **others: object) -> str:
    return jwt.encode({"who": user} | others, secret, "HS256")


ALICE = claims("alice", publish=["open/#", "users/+/inbox"])


def test_a_jwt_says_who_may_connect(start: Start) -> None:
    node = start(JWT_PLUGINS | RULES, topics=OPEN)
    assert connack(node, "alice", claims("alice")) == 0
    assert connack(node, "alice", claims("alice", exp=time.time() + 60)) == 0
    for token in (
        claims("bob"),
        claims("alice", "another secret of thirty-two chars"),
        claims("alice", exp=time.time() - 60),
        jwt.encode({"who": "alice"}, None, "none"),
        jwt.encode({}, SECRET, "HS256"),
        password("alice"),
    ):
        assert connack(node, "alice", token) == NOT_AUTHORIZED


def test_claims_say_what_may_be_published_and_subscribed(start: Start) -> None:
    node = start(JWT_PLUGINS | RULES, topics=OPEN)
    token = claims("bob", publish=["open/mine/+"], subscribe=["open/a/#", "users/+/inbox"], receive=["#"])
    with login(node, "bob", token) as bob:
        filters = ["open/a/#", "open/b", "open/#", "users/bob/inbox", "users/alice/inbox"]
        assert subscribe(bob, *filters) == [1, FAILURE, FAILURE, 1, FAILURE]
    reader_token = claims("alice", subscribe=["open/#"], receive=["open/#"])
    with login(node, "alice", reader_token) as reader, login(node, "bob", token) as bob:
        assert subscribe(reader, "open/#") == [1]
        publish(bob, "open/other", b"refused")
        publish(bob, "open/mine/1", b"allowed")
        assert reader.message()[:2] == ("open/mine/1", b"allowed")
        expect_silence(reader)


@pytest.mark.parametrize("way", ["live", "retained", "offline"])
def test_without_the_receive_claim_nothing_of_a_topic_arrives(start: Start, way: str) -> None:
    node = start(JWT_PLUGINS | RULES, topics=OPEN)
    token = claims("bob", subscribe=["open/#"], receive=["open/public/#"])
    with login(node, "alice", ALICE) as alice:
        bob = login(node, "bob", token, clean=False)
        if way != "retained":
            assert subscribe(bob, "open/#") == [1]
        if way == "offline":
            bob.socket.close()
            wait_for(lambda: node.stats()["clients_connected"] == 1, "bob to be gone")
        publish(alice, "open/private/1", b"secret", retain=way == "retained")
        publish(alice, "open/public/1", b"news", retain=way == "retained")
        if way == "retained":
            assert subscribe(bob, "open/#") == [1]
        elif way == "offline":
            bob = RawClient(node.port)
            assert bob.login("device-of-bob", "bob", token, clean=False)
        with bob:
            assert bob.message()[:2] == ("open/public/1", b"news")
            expect_silence(bob)


def test_a_log_needs_the_receive_claim_too(start: Start) -> None:
    node = start(JWT_PLUGINS | RULES, topics=OPEN)
    with (
        login(node, "alice", ALICE) as alice,
        login(node, "bob", claims("bob", subscribe=["users/bob/#"], receive=["users/bob/presence"])) as bob,
    ):
        assert subscribe(bob, "users/bob/#") == [1]
        assert bob.message()[0] == "users/bob/presence"
        publish(alice, "users/bob/inbox", b"hello")
        expect_silence(bob)
    assert len(node.history("p:alice:bob")) == 1


@pytest.mark.parametrize("topic", ["open/public/1", "users/bob/inbox"])
def test_when_the_token_ends_so_does_the_right_to_receive(start: Start, topic: str) -> None:
    node = start(JWT_PLUGINS | RULES, topics=OPEN)
    ends = int(time.time()) + 3
    filters = ["open/#", "users/bob/inbox"]
    with (
        login(node, "alice", ALICE) as alice,
        login(node, "bob", claims("bob", subscribe=filters, receive=filters, exp=ends)) as bob,
    ):
        assert subscribe(bob, *filters) == [1, 1]
        publish(alice, topic, b"in time")
        assert b"in time" in bob.message()[1]
        wait_for(lambda: time.time() > ends + 1.5, "the token to end")
        publish(alice, topic, b"too late")
        bob.send(raw.packet(0xC0))
        answer = bob.receive()
        assert answer is None or answer.type == PINGRESP
