"""SIGHUP: a running node reads its configuration again and keeps all connections."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration import raw
from tests.integration.node import ROOT, Node, password, wait_for
from tests.integration.raw import RawClient

PUBLISH, PUBACK, SUBACK, PINGRESP = 3, 4, 9, 13
REFUSED = 0x80


class Reloadable:
    """A node whose configuration file can be changed."""

    def __init__(self, make_node: Callable[..., Node], folder: Path) -> None:
        self.file = folder / "broker.yaml"
        self.values = yaml.safe_load((ROOT / "config" / "broker.yaml").read_text())
        self.write()
        self.node = make_node(config=self.file)

    def write(self) -> None:
        self.file.write_text(yaml.safe_dump(self.values))

    def hang_up(self) -> list[str]:
        """Send SIGHUP. Returns what the node says about it."""
        before = len(self.node.log())
        assert self.node.process is not None
        self.node.process.send_signal(signal.SIGHUP)

        def said() -> list[str]:
            lines = self.node.log()[before:].splitlines()
            return [line.partition("reload: ")[2] for line in lines if "reload: " in line]

        wait_for(said, "a word about the reload")
        time.sleep(0.1)
        return said()

    def change(self, section: str, **values: object) -> list[str]:
        """Change keys of a section and send SIGHUP."""
        self.values.setdefault(section, {}).update(values)
        self.write()
        return self.hang_up()


@pytest.fixture
def served(make_node: Callable[..., Node], tmp_path: Path) -> Reloadable:
    reloadable = Reloadable(make_node, tmp_path)
    reloadable.node.start()
    return reloadable


@pytest.fixture
def alice(served: Reloadable) -> Iterator[RawClient]:
    """A client that is connected for the whole test. It must be alive at the end."""
    user = served.node.user("alice")
    with RawClient(served.node.port) as client:
        client.login("always", user, password(user))
        yield client
        client.send(raw.packet(0xC0))
        while client.expect_any().type != PINGRESP:
            pass


def subscribe(client: RawClient, number: int, topic_filter: str, qos: int = 1) -> int:
    client.send(raw.subscribe(number, (topic_filter, qos)))
    return client.expect(SUBACK).body[2]


def login(served: Reloadable, client: RawClient, prefix: str, **options: bool) -> str:
    user = served.node.user(prefix)
    client.login(f"c-{user}", user, password(user), **options)
    return user


def test_a_changed_limit_holds_at_once(served: Reloadable, alice: RawClient) -> None:
    assert subscribe(alice, 1, "groups/+") == 1
    assert served.change("limits", max_subscriptions=1) == ["limits.max_subscriptions: 1000 -> 1"]
    assert subscribe(alice, 2, "users/+/presence") == REFUSED
    assert served.change("limits", max_subscriptions=2) == ["limits.max_subscriptions: 1 -> 2"]
    assert subscribe(alice, 3, "users/+/presence") == 1


def test_limits_of_the_connection_and_of_its_session(served: Reloadable, alice: RawClient) -> None:
    """`max_inflight` holds for a session that is connected, the size before CONNECT for new connections."""
    said = served.change("limits", max_inflight=3, max_packet_bytes_before_connect=300)
    assert sorted(said) == [
        "limits.max_inflight: 100 -> 3",
        "limits.max_packet_bytes_before_connect: 16384 -> 300",
    ]
    with RawClient(served.node.port) as other:
        other.send(raw.connect("x" * 250, "user", "password" * 10))
        assert other.is_closed()
    with RawClient(served.node.port) as slow:
        user = login(served, slow, "slow")
        assert subscribe(slow, 1, f"users/{user}/inbox") == 1
        for number in range(1, 6):
            slow.send(raw.publish(f"users/{user}/inbox", b"m%d" % number, 1, number))
        got = [slow.receive().type for _ in range(5 + 3)]
        assert got.count(PUBLISH) == 3  # no more without a PUBACK
        slow.send(raw.packet(0xC0))
        slow.expect(PINGRESP)


def test_the_size_of_outboxes(served: Reloadable, alice: RawClient) -> None:
    """What is too much for a reader's outbox in one turn of the event loop is dropped with QoS 0."""
    served.change("topics", open=["open/#"])
    subscribe(alice, 1, "open/#", 0)

    def dropped() -> int:
        with RawClient(served.node.port) as other:
            login(served, other, "other")
            other.send(b"".join(raw.publish("open/a", bytes(2000)) for _ in range(30)))
            other.send(raw.packet(0xC0))
            other.expect(PINGRESP)
        return served.node.stats().get("dropped.slow_consumer", 0)

    assert dropped() == 0
    assert served.change("limits", outbox_bytes=4096) == ["limits.outbox_bytes: 1048576 -> 4096"]
    # Mostly at once, but the messages may come in several turns. All of them are less than the size before.
    assert any(dropped() for _ in range(5))


def test_limits_of_the_services(served: Reloadable, alice: RawClient) -> None:
    owner, one, two = (served.node.user(name) for name in ("owner", "one", "two"))
    assert served.change("limits", group_members=2) == ["limits.group_members: 10000 -> 2"]
    with pytest.raises(Exception, match="at most 2 members"):
        served.node.group(owner, one, two)
    assert served.change("messages", edit_seconds=0.0) == ["messages.edit_seconds: 86400.0 -> 0.0"]
    with RawClient(served.node.port) as client:
        user = login(served, client, "editor")
        assert subscribe(client, 1, f"users/{user}/replies") == 1
        client.send(raw.publish(f"users/{user}/inbox", b"typo", 1, 1))
        client.expect(PUBACK)
        (stored,) = served.node.history(f"p:{user}:{user}")
        time.sleep(0.01)
        call = json.dumps({"id": stored["id"], "content": "mended"}).encode()
        client.send(raw.publish(f"users/{user}/rpc/messages.edit", call, 0))
        assert json.loads(client.message()[1])["error"]["code"] == "too_late"


def test_limits_of_http(served: Reloadable, alice: RawClient) -> None:
    account = {"user_id": "carol", "password": "long enough"}
    refused = httpx.post(f"{served.node.http}/api/register", json=account)
    assert refused.status_code == 403
    said = served.change("http", registration=True, token_ttl=60)
    assert sorted(said) == ["http.registration: False -> True", "http.token_ttl: 86400 -> 60"]
    assert httpx.post(f"{served.node.http}/api/register", json=account).status_code == 201
    assert httpx.post(f"{served.node.http}/api/login", json=account).json()["expires_in"] == 60


def test_topics_are_opened_and_closed_again(served: Reloadable, alice: RawClient) -> None:
    assert subscribe(alice, 1, "sensors/+") == REFUSED
    assert served.change("topics", open=["sensors/#"]) == ["topics.open: [] -> ['sensors/#']"]
    assert subscribe(alice, 2, "sensors/+") == 1
    assert subscribe(alice, 3, "sensors/one") == 1
    with RawClient(served.node.port) as sensor:
        user = login(served, sensor, "sensor")
        assert subscribe(sensor, 1, f"users/{user}/events") == 1
        sensor.send(raw.publish("sensors/one", b"21.5", 1, 1))
        assert alice.message()[:2] == ("sensors/one", b"21.5")
        assert sensor.receive().type == PUBACK
        served.change("topics", open=["other/#"])
        time.sleep(1)  # within a second a lost right is gone
        sensor.send(raw.publish("sensors/one", b"22.5", 1, 2))
        answers = [sensor.receive(), sensor.receive()]
        assert sorted(answer.type for answer in answers) == [PUBLISH, PUBACK]
        assert b"unknown_topic" in answers[0].body + answers[1].body
        assert subscribe(alice, 4, "sensors/two") == REFUSED
        served.change("topics", open=["sensors/#"])

        def is_delivered() -> bool:
            sensor.send(raw.publish("sensors/one", b"23.5", 0))
            alice.send(raw.packet(0xC0))
            return alice.receive().type == PUBLISH

        wait_for(is_delivered, "the old subscription to hold again")


def test_what_is_opened_is_queued_for_sessions_that_are_away(served: Reloadable, alice: RawClient) -> None:
    served.change("topics", open=["sensors/#"])
    with RawClient(served.node.port) as away:
        user = login(served, away, "away", clean=False)
        assert subscribe(away, 1, "sensors/#") == 1
        away.send(raw.packet(0xE0))
        assert away.is_closed()
    served.change("topics", open=["other/#"])
    served.change("topics", open=["other/#", "sensors/#"])
    with RawClient(served.node.port) as sensor:
        login(served, sensor, "sensor")
        sensor.send(raw.publish("sensors/one", b"21.5", 1, 1))
        sensor.expect(PUBACK)
    with RawClient(served.node.port) as back:
        back.login(f"c-{user}", user, password(user), clean=False)
        assert back.message()[:2] == ("sensors/one", b"21.5")


def test_the_log_level(served: Reloadable, alice: RawClient) -> None:
    def lines_of_a_disconnect() -> str:
        before = len(served.node.log())
        with RawClient(served.node.port) as client:
            login(served, client, "short")
            client.send(raw.packet(0xE0))
            assert client.is_closed()
        time.sleep(0.2)
        return served.node.log()[before:]

    assert "closing" not in lines_of_a_disconnect()
    assert served.change("log", level="debug") == ["log.level: 'info' -> 'debug'"]
    assert "closing" in lines_of_a_disconnect()
    served.change("log", level="warning")
    assert lines_of_a_disconnect() == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("limits: [", "not valid YAML"),
        ("limits:\n  max_inflght: 3\n", "limits.max_inflght: unknown key"),
        ("limits:\n  max_inflight: many\n", "limits.max_inflight"),
        ("", "expected sections"),
        (None, "No such file"),
    ],
)
def test_a_faulty_file_changes_nothing(
    served: Reloadable, alice: RawClient, text: str | None, problem: str
) -> None:
    if text is None:
        served.file.unlink()
    else:
        served.values["limits"] = {"max_subscriptions": 1}
        kept = {name: values for name, values in served.values.items() if name != "limits"}
        good = yaml.safe_dump(kept)
        served.file.write_text(f"{good}\n{text}\n  max_subscriptions: 1\n" if text else "")
    (said,) = served.hang_up()
    assert said.startswith("nothing is changed: ")
    assert problem in said
    assert subscribe(alice, 1, "groups/+") == 1
    assert subscribe(alice, 2, "users/+/presence") == 1


@pytest.mark.parametrize(
    ("section", "values", "problem"),
    [
        ("listeners", {"default": {"type": "carrier-pigeon"}}, "listeners.default.type"),
        ("plugins", {"plugins.auth.NoSuchPlugin": {}}, "plugins.plugins.auth.NoSuchPlugin"),
        ("grpc", {"tls_cert": "absent.pem", "tls_key": "absent.pem"}, "grpc.tls_cert"),
    ],
)
def test_faults_that_others_find_change_nothing(
    served: Reloadable, alice: RawClient, section: str, values: dict[str, object], problem: str
) -> None:
    served.values["limits"]["max_subscriptions"] = 1
    (said,) = served.change(section, **values)
    assert said.startswith("nothing is changed: ")
    assert problem in said
    assert subscribe(alice, 1, "groups/+") == 1
    assert subscribe(alice, 2, "users/+/presence") == 1


def test_what_needs_a_restart_is_named(served: Reloadable, alice: RawClient) -> None:
    served.values["node"]["id"] = 7
    served.values["storage"]["directory_url"] = "mysql://parley:secret@host/db"
    served.values["plugins"]["plugins.auth.UserAuthPlugin"]["allow_anonymous"] = True
    said = served.change("limits", max_packet_bytes=2048, max_queued=5)
    restart = "differs, and takes effect only after a restart"
    assert sorted(said) == [
        f"limits.max_packet_bytes {restart}",
        "limits.max_queued: 1000 -> 5",
        f"node.id {restart}",
        f"plugins.plugins.auth.UserAuthPlugin {restart}",
        f"storage.directory_url {restart}",
    ]
    assert "secret" not in served.node.log()
    again = served.hang_up()
    assert len(again) == 4  # it has changed max_queued already
    with RawClient(served.node.port) as nobody:
        nobody.send(raw.connect("nobody"))
        assert nobody.receive().body[1] == 5


def test_nothing_has_changed(served: Reloadable, alice: RawClient) -> None:
    assert served.hang_up() == ["nothing has changed"]


def test_token_keys(served: Reloadable, alice: RawClient) -> None:
    user = served.node.user("bearer")
    old = served.node.token(user)
    file = served.node.data_dir / "token_keys.json"
    keys = json.loads(file.read_text())
    keys = {"active": "k2", "keys": keys["keys"] | {"k2": "s" * 40}}
    file.write_text(json.dumps(keys))
    assert served.hang_up() == ["token keys: key 'k2' is new", "token keys: the active key is 'k2'"]
    new = served.node.token(user)
    for token in (old, new):
        with RawClient(served.node.port) as client:
            client.login("c", user, token)
    del keys["keys"]["k1"]
    file.write_text(json.dumps(keys))
    assert served.hang_up() == ["token keys: key 'k1' is gone"]
    with RawClient(served.node.port) as client:
        client.send(raw.connect("c", user, old))
        assert client.receive().body[1] == 5
    file.write_text("{")
    served.values["limits"]["max_queued"] = 5
    served.write()
    (said,) = served.hang_up()
    assert said.startswith(f"nothing is changed: {file}: ")
    file.write_text(json.dumps(keys))
    assert served.hang_up() == ["limits.max_queued: 1000 -> 5"]


def test_many_signals_end_nothing(served: Reloadable, alice: RawClient) -> None:
    assert served.node.process is not None
    for _ in range(50):
        served.node.process.send_signal(signal.SIGHUP)
    served.hang_up()
    assert subscribe(alice, 1, "groups/+") == 1


def test_a_signal_while_the_node_stops(served: Reloadable) -> None:
    process = served.node.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 0
