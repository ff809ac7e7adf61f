"""amqtt's plugins, its own and third-party ones, unchanged on this broker."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from tests.integration import raw
from tests.integration.node import Node, password, wait_for
from tests.integration.plugin_kit import (
    CONNACK,
    FAILURE,
    NOT_AUTHORIZED,
    OPEN,
    PINGRESP,
    PLATFORM,
    PUBACK,
    RULES,
    STORE,
    SUBACK,
    UNSUBACK,
    USERS,
    Start,
    add_user,
    connack,
    expect_silence,
    login,
    publish,
    subscribe,
)
from tests.integration.raw import RawClient

THIRD_PARTY = """
import asyncio, json
from dataclasses import dataclass
from functools import partial
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin

class Recorder(BasePlugin):
    @dataclass
    class Config:
        file: str
    async def record(self, event, **values):
        for name, value in values.items():
            if name in ("session", "client_session"):
                values[name] = value and [value.client_id, value.username, value.remote_address]
            elif name == "message":
                values[name] = [value.topic, value.data.decode(), value.qos]
            elif name == "packet":
                values[name] = type(value).__name__.removesuffix("Packet")
        with open(self.config.file, "a") as out:
            print(json.dumps([event, values]), file=out)
    def __getattr__(self, name):
        if name.startswith("on_"):
            return partial(self.record, name.removeprefix("on_").removeprefix("broker_"))
        raise AttributeError(name)

async def moody(text):
    if "raise" in text:
        raise RuntimeError("moody")
    if "hang" in text:
        await asyncio.sleep(3600)
    return None if "ignore" in text else True

class MoodyAuth(BaseAuthPlugin):
    async def authenticate(self, *, session):
        return await moody(session.username)
class MoodyTopics(BaseTopicPlugin):
    async def topic_filtering(self, *, session=None, topic=None, action=None):
        return await moody(topic if topic.endswith(action.value) else "")
class MoodyEvents(BasePlugin):
    async def on_broker_client_connected(self, *, client_id, client_session):
        await moody(client_id)
"""


@pytest.fixture
def start(make_node: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """`start(plugins, **sections)`: a node with these plugins and a store, and with the users alice, bob and
    root (admin)."""
    (tmp_path / "third_party.py").write_text(THIRD_PARTY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(plugins: dict[str, Any], **sections: dict[str, Any]) -> Node:
        file = tmp_path / "broker.yaml"
        sections |= {"listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0"}}}
        sections |= {"plugins": plugins | STORE}
        file.write_text(yaml.safe_dump(sections))
        node = make_node(config=file).start()
        for name, role in (("alice", "user"), ("bob", "user"), ("root", "admin")):
            add_user(node, name, role)
        return node

    return start


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
    wrong = [("alice", "wrong"), ("alice", ""), ("alice", None), ("unknown", password("alice")), (None, None)]
    for user, secret in [*wrong, ("bob", password("bob"))]:  # bob is in the directory only
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
    assert [message["content"] for message in node.history("p:alice:bob")] == ["hello"]


def test_without_authentication_plugins_nobody_may_connect(start: Start) -> None:
    node = start(RULES, topics=OPEN)
    assert connack(node, None, None) == connack(node, "alice", password("alice")) == NOT_AUTHORIZED


def test_without_topic_plugins_the_topics_of_the_server_stay_its_own(start: Start) -> None:
    node = start(USERS)
    topics = ["$SYS/made-up", "users/root/events", "users/root/replies"]
    with login(node, "root") as root, login(node, "alice") as alice, login(node, "bob") as bob:
        assert subscribe(root, *topics, "free") == [1] * 4
        alice.send(b"".join(raw.publish(topic, b"{}", 0) for topic in topics) + raw.packet(0xC0))
        alice.receive()  # PINGRESP, or the end of the connection
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

    def read_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + raw.TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, seen
            name, payload, _, _ = root.message()
            seen[name.removeprefix("$SYS/broker/")] = payload.decode()

    with login(node, "root") as root, login(node, "alice") as alice, login(node, "bob") as bob:
        assert subscribe(alice, "$SYS/#") == [FAILURE]
        assert subscribe(root, "$SYS/#") == subscribe(bob, "open/#") == [1]
        for number in range(5):
            publish(alice, f"open/{number}", b"reading")
            bob.message()
        read_until(lambda: seen.get("messages/publish/received") == "5" and "cpu/maximum" in seen)
        assert (seen["clients/connected"], seen["messages/subscriptions/count"]) == ("3", "2")
        assert int(seen["messages/received"]) >= 3 + 3 + 5
        for direction in ("received", "sent"):
            assert int(seen[f"load/bytes/{direction}"]) > 5 * len("open/0reading")
        read_until(lambda: int(seen["messages/publish/sent"]) >= 5)
        assert seen["version"].startswith("aMQTT version ")
        bob.socket.close()
        read_until(lambda: seen["clients/connected"] == "2")


SECRET = "a secret of thirty-two characters"
JWT_PLUGINS = {
    "amqtt.contrib.jwt.UserAuthJwtPlugin": {"secret_key": SECRET, "user_claim": "who"},
    "amqtt.contrib.jwt.TopicAuthJwtPlugin": {"secret_key": SECRET}
    | {f"{action}_claim": action for action in ("publish", "subscribe", "receive")},
}


def claims(user: str, secret: str = SECRET, **others: object) -> str:
    return jwt.encode({"who": user} | others, secret, "HS256")


ALICE = claims("alice", publish=["open/#", "users/+/inbox"])


def test_a_jwt_says_who_may_connect(start: Start) -> None:
    node = start(JWT_PLUGINS | RULES, topics=OPEN)
    assert connack(node, "alice", claims("alice")) == 0
    assert connack(node, "alice", claims("alice", exp=time.time() + 60)) == 0
    others = [claims("bob"), claims("alice", "another secret of thirty-two chars"), password("alice")]
    others += [jwt.encode({}, SECRET, "HS256"), jwt.encode({"who": "alice"}, None, "none")]
    for token in [*others, claims("alice", exp=time.time() - 60)]:
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
    node = start(JWT_PLUGINS | RULES)
    token = claims("bob", subscribe=["users/bob/#"], receive=["users/bob/presence"])
    with login(node, "alice", ALICE) as alice, login(node, "bob", token) as bob:
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
    token = claims("bob", subscribe=filters, receive=filters, exp=ends)
    with login(node, "alice", ALICE) as alice, login(node, "bob", token) as bob:
        assert subscribe(bob, *filters) == [1, 1]
        publish(alice, topic, b"in time")
        assert b"in time" in bob.message()[1]
        wait_for(lambda: time.time() > ends + 1.5, "the token to end")
        for _ in range(2):
            publish(alice, topic, b"too late")
        bob.send(raw.packet(0xC0))
        answer = bob.receive()
        assert answer is None or answer.type == PINGRESP


def recorded(file: Path, *kinds: str) -> list[list[Any]]:
    """The events that a Recorder has recorded, of some kinds or of all."""
    events = [json.loads(line) for line in file.read_text().splitlines()]
    return [event for event in events if not kinds or event[0] in kinds]


def test_events_arrive_as_amqtt_documents_them(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "events"
    node = start(PLATFORM | {"third_party.Recorder": {"file": str(file)}}, topics=OPEN)
    with login(node, "alice") as alice:
        assert subscribe(alice, "open/a", "users/bob/inbox") == [1, FAILURE]
        publish(alice, "open/b", b"hello")
        publish(alice, "users/bob/inbox", b"hi")
        alice.send(raw.packet(0xA2, b"\0\2" + raw.text("open/a")) + raw.packet(0xE0))
        alice.expect(UNSUBACK)
        assert alice.is_closed()
    node.stop()
    events = recorded(file)
    device, session = {"client_id": "device-of-alice"}, ["device-of-alice", "alice", "127.0.0.1"]
    life = [event for event in events if event[0].startswith(("client_", "pre_", "post_"))]
    of_the_node = ["pre_start", "post_start", "pre_shutdown", "post_shutdown"]
    assert life[:2] + life[-2:] == [[event, {}] for event in of_the_node]
    assert life[2:-2] == [
        ["client_connected", device | {"client_session": session}],
        ["client_subscribed", device | {"topic": "open/a", "qos": 1}],
        ["client_unsubscribed", device | {"topic": "open/a"}],
        ["client_disconnected", device | {"client_session": session}],
    ]
    messages = (["open/b", "hello", 1], ["users/bob/inbox", "hi", 1])
    for event in ("message_received", "message_broadcast"):
        assert recorded(file, event) == [[event, device | {"message": message}] for message in messages]
    received, sent = recorded(file, "mqtt_packet_received"), recorded(file, "mqtt_packet_sent")
    in_order = ["Connect", "Subscribe", "Publish", "Publish", "Unsubscribe", "Disconnect"]
    assert [values["packet"] for _, values in received] == in_order
    assert [values["packet"] for _, values in sent] == ["Connack", "Suback", "Puback", "Puback", "Unsuback"]
    assert [values["session"] for _, values in received[1:] + sent] == [session] * 10


def test_a_message_that_is_refused_is_received_but_not_broadcast(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "events"
    node = start(PLATFORM | {"third_party.Recorder": {"file": str(file)}})
    with login(node, "alice") as alice:
        publish(alice, "elsewhere", b"refused")
    node.stop()
    assert len(recorded(file, "message_received")) == 1
    assert recorded(file, "message_broadcast") == []


def test_a_plugin_that_raises_hangs_or_does_not_say_denies(start: Start) -> None:
    node = start(PLATFORM | {"third_party.MoodyAuth": {}, "third_party.MoodyTopics": {}}, topics=OPEN)
    for name in ("raise", "hang", "carol"):
        add_user(node, name)
    alice, bob, carol, root = (login(node, name) for name in ("alice", "bob", "carol", "root"))
    with alice, bob, carol, root, RawClient(node.port) as hung:
        assert connack(node, "raise", password("raise")) == NOT_AUTHORIZED
        codes = subscribe(bob, "open/#", "open/raise-subscribe", "open/ignore-subscribe")
        assert codes == [1, FAILURE, FAILURE]
        for topic in ("raise-publish", "ignore-publish", "raise-receive", "ignore-receive", "hang-receive"):
            publish(alice, f"open/{topic}", b"denied")
        hung.send(raw.connect("", "hang", password("hang")))
        root.send(raw.subscribe(1, ("open/hang-subscribe", 1)))
        alice.send(raw.publish("open/hang-publish", b"denied", 1, 1))
        publish(carol, "open/meanwhile", b"others go on")
        assert bob.message()[0] == "open/meanwhile"
        assert hung.expect(CONNACK).body[1] == NOT_AUTHORIZED
        assert root.expect(SUBACK).body[2:] == bytes((FAILURE,))
        alice.expect(PUBACK)
        publish(carol, "open/end", b"")
        assert bob.message()[0] == "open/end"


@pytest.mark.parametrize("mood", ["raise", "hang"])
def test_a_moody_event_handler_harms_nobody_nor_the_shutdown(start: Start, mood: str) -> None:
    node = start(PLATFORM | {"third_party.MoodyEvents": {}})
    with RawClient(node.port) as alice:
        alice.login(mood, "alice", password("alice"))
        publish(alice, "users/bob/inbox", b"hello")
    try:
        node.process.terminate()
        assert node.process.wait(15) == 0
    finally:
        node.kill()
