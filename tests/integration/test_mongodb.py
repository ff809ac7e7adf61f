"""A node on MongoDB: killed, it goes on; while its server is away nobody is acknowledged or disconnected, and
/readyz says why; what it cannot start with is one line and exit status 1."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pymongo import MongoClient

from tests.integration import raw
from tests.integration.node import HOST, ROOT, Node, password, wait_for
from tests.integration.raw import RawClient
from tests.integration.test_full_disk import Publisher, ready, texts
from tests.integration.test_serve import serve
from tests.servers import mongodb
from tests.servers.processes import Process, free_port

SUBACK, PUBACK = 9, 4
SQLITE = "plugins.persistence.sqlite.SqlitePersistencePlugin"
MONGODB = "plugins.persistence.mongodb.MongoPersistencePlugin"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Process, str]]:
    """A server of the test's own, running."""
    folder = tmp_path / "server"
    folder.mkdir()
    process, url = mongodb.own(folder)
    process.start()
    yield process, url
    process.kill()


def configured(folder: Path, url: str, **options: Any) -> Path:
    """The default configuration with this store."""
    config = yaml.safe_load((ROOT / "config" / "broker.yaml").read_text())
    del config["plugins"][SQLITE]
    config["plugins"][MONGODB] = {"uri": url, "pool_min": 1, "select_timeout_ms": 1000, **options}
    file = folder / "mongodb.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_a_node_that_is_killed_goes_on(
    make_node: Callable[..., Node], tmp_path: Path, server: tuple[Process, str]
) -> None:
    node = make_node('topics.open=["open/#"]', config=configured(tmp_path, server[1])).start()
    ann, ben = node.user("ann"), node.user("ben")
    with RawClient(node.port) as phone:
        phone.login("phone", ben, password(ben), clean=False)
        phone.send(raw.subscribe(1, (f"users/{ben}/inbox", 1), ("open/queue", 1)))
        phone.expect(SUBACK)
    with Publisher(node, ann, ben) as publisher:
        publisher.publish(5)
        publisher.acknowledged(1, 5)
        publisher.send(raw.publish("open/queue", b"waiting", 1, 6))
        publisher.expect(PUBACK)
    node.kill()
    node.start()
    with RawClient(node.port) as phone:
        assert phone.login("phone", ben, password(ben), clean=False)
        found = [phone.message()[:2] for _ in range(6)]
    inbox = [json.loads(payload) for topic, payload in found if topic != "open/queue"]
    assert [(entry["offset"], entry["content"]) for entry in inbox] == [(n, f"{n}") for n in range(1, 6)]
    assert ("open/queue", b"waiting") in found
    assert not (node.data_dir / "parley.db").exists()
    assert node.stop() == 0
    assert "Traceback" not in node.log()


def test_publishers_wait_while_the_server_is_away(
    make_node: Callable[..., Node], tmp_path: Path, server: tuple[Process, str]
) -> None:
    process, url = server
    node = make_node(config=configured(tmp_path, url)).start()
    ann, ben = node.user("ann"), node.user("ben")
    with Publisher(node, ann, ben) as publisher:
        publisher.publish(3)
        publisher.acknowledged(1, 3)
        process.kill()
        publisher.publish(5)
        found = wait_for(lambda: ready(node), "the node to be not ready")
        assert found.startswith("503 ")
        why = "commits fail: mongodb: cannot be reached"
        wait_for(lambda: why in ready(node), "the reason")
        assert url.removeprefix("mongodb://") not in ready(node), "anybody may ask"
        publisher.is_served()
        process.start()
        publisher.acknowledged(4, 8)
    wait_for(lambda: not ready(node), "the node to be ready")
    assert texts(node, ann, ben) == [f"{n}" for n in range(1, 9)]
    assert node.stop() == 0
    assert "Traceback" not in node.log()


def test_what_it_cannot_start_with(tmp_path: Path, server: tuple[Process, str]) -> None:
    _, url = server
    with MongoClient[dict[str, Any]](url) as connected:
        connected["newer"].meta.insert_one({"_id": "schema", "version": 99})
    nowhere = f"{HOST}:{free_port()}"
    address = url.removeprefix("mongodb://")
    cases = {
        f"mongodb://parley:secret@{nowhere}": ({}, f"mongodb {nowhere}/parley: cannot be reached ("),
        url: (
            {"database": "newer"},
            f"mongodb {address}/newer: the database has schema version 99, newer than",
        ),
    }
    for uri, (options, line) in cases.items():
        data = ("--data-dir", str(tmp_path / "data"))
        status, error = serve(configured(tmp_path, uri, **options), *data)
        assert (status, error.count("\n")) == (1, 1)
        assert error.startswith(f"imctl serve: {line}")
        assert "secret" not in error
