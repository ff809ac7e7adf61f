"""A persistence plugin of somebody else: a package outside the project's tree, named in the configuration."""

import ast
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration import raw
from tests.integration.node import ROOT, Node, password
from tests.integration.raw import RawClient
from tests.integration.test_serve import serve

CONNACK, PUBACK, SUBACK = 2, 4, 9
PACKAGE = ROOT / "tests" / "outside" / "memory_store"
SQLITE = "plugins.persistence.sqlite.SqlitePersistencePlugin"
MEMORY = "memory_store.MemoryPersistencePlugin"

UNREACHABLE = """
from amqtt.plugins.base import BasePlugin
from broker.domain.errors import StoreError

class Plugin(BasePlugin):
    @classmethod
    async def open_stores(cls, options, context):
        raise StoreError("db.example:27017 does not answer")
"""

Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """`configure(plugin, **options)`: the default configuration with another persistence plugin; a node
    finds its package in a directory of the test's own."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(PACKAGE, elsewhere / "memory_store", ignore=shutil.ignore_patterns("__pycache__"))
    (elsewhere / "unreachable.py").write_text(UNREACHABLE)
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))

    def configure(plugin: str, **options: Any) -> Path:
        config = yaml.safe_load((ROOT / "config" / "broker.yaml").read_text())
        del config["plugins"][SQLITE]
        config["plugins"][plugin] = options
        file = tmp_path / "broker.yaml"
        file.write_text(yaml.safe_dump(config))
        return file

    return configure


def login(client: RawClient, user: str, *, clean: bool = True) -> bool:
    """Returns whether a session was present."""
    return client.login(f"device-of-{user}", user, password(user), clean=clean)


def publish(client: RawClient, topic: str, text: str, *, retain: bool = False) -> None:
    """Publish with QoS 1; returns when it is stored."""
    client.send(raw.publish(topic, text.encode(), 1, 1, retain))
    client.expect(PUBACK)


def received(client: RawClient) -> tuple[str, int, Any]:
    """The next message of a log: its topic, offset and content."""
    topic, payload, _, _ = client.message()
    document = json.loads(payload)
    return topic, document["offset"], document["content"]


def test_the_package_sees_what_an_outsider_may_see() -> None:
    allowed = ("broker.domain", "broker.ports", "amqtt.contexts", "amqtt.plugins.base", "msgspec")
    for file in PACKAGE.glob("*.py"):
        for statement in ast.walk(ast.parse(file.read_text())):
            if isinstance(statement, ast.ImportFrom) and not statement.level:
                names = [str(statement.module)]
            elif isinstance(statement, ast.Import):
                names = [name.name for name in statement.names]
            else:
                continue
            for name in names:
                known = name.split(".")[0] in sys.stdlib_module_names or name.startswith(allowed)
                assert known, f"{file.name} imports {name}"


def test_it_stores_and_replays(make_node: Callable[..., Node], configure: Configure) -> None:
    node = make_node('topics.open=["open/#"]', config=configure(MEMORY)).start()
    alice, bob = node.user("alice"), node.user("bob")
    team = node.group(alice, bob)
    inbox, room = f"users/{bob}/inbox", f"groups/{team}"
    with RawClient(node.port) as sender:
        login(sender, alice)
        with RawClient(node.port) as phone:
            assert not login(phone, bob, clean=False)
            phone.send(raw.subscribe(1, (inbox, 1), (room, 1), ("open/queue", 1)))
            assert phone.expect(SUBACK).body[2:] == b"\1\1\1"
            publish(sender, inbox, "live")
            assert received(phone) == (inbox, 1, "live")
            phone.send(raw.packet(0xE0))
            assert phone.is_closed()
        publish(sender, inbox, "away")
        publish(sender, room, "away, all")
        publish(sender, "open/queue", "away, no log")
        publish(sender, "open/kept", "retained", retain=True)
        with RawClient(node.port) as phone:
            assert login(phone, bob, clean=False)
            replayed = dict(phone.message()[:2] for _ in range(3))
            assert replayed.pop("open/queue") == b"away, no log"
            contents = {topic: json.loads(payload)["content"] for topic, payload in replayed.items()}
            assert contents == {inbox: "away", room: "away, all"}
            phone.send(raw.subscribe(2, ("open/kept", 1)))
            phone.expect(SUBACK)
            assert phone.message()[:2] == ("open/kept", b"retained")
    private = ":".join(["p", *sorted((alice, bob))])
    assert [message["content"] for message in node.history(private)] == ["live", "away"]
    assert not (node.data_dir / "parley.db").exists()
    assert node.stop() == 0
    assert "Traceback" not in node.log()


def test_its_options_may_be_set(make_node: Callable[..., Node], configure: Configure) -> None:
    config = configure(MEMORY, capacity=10)
    node = make_node(f"plugins.{MEMORY}.capacity=2", config=config).start()
    alice, bob = node.user("alice"), node.user("bob")
    with RawClient(node.port) as sender:
        login(sender, alice)
        for text in ("one", "two"):
            publish(sender, f"users/{bob}/inbox", text)
        sender.send(raw.publish(f"users/{bob}/inbox", b"three", 1, 1))
        assert sender.is_closed(), "what is not stored is not acknowledged"
    assert "none acknowledged: the store is full: it keeps 2 messages" in node.log()


def test_when_it_cannot_be_opened_one_line_says_why(tmp_path: Path, configure: Configure) -> None:
    status, error = serve(configure("unreachable.Plugin"), "--data-dir", str(tmp_path / "data"))
    assert (status, error) == (1, "imctl serve: db.example:27017 does not answer\n")
