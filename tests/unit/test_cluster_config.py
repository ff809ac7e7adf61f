"""config/cluster.yaml: every key is known, and those of the shared stores are all there."""

from dataclasses import asdict
from pathlib import Path

import yaml

from broker.amqtt_edge.listeners import read_listeners
from broker.config import Cluster, DirectoryPool, load
from plugins.persistence.mongodb import MongoPersistencePlugin

FILE = Path(__file__).resolve().parents[2] / "config" / "cluster.yaml"
STORE = "plugins.persistence.mongodb.MongoPersistencePlugin"


def test_the_file_is_a_configuration() -> None:
    config = load(FILE, {}, ())
    assert [listener.name for listener in read_listeners(config)] == ["default", "ws"]
    assert config.cluster.url is not None


def test_behind_a_load_balancer_both_listeners_expect_its_header() -> None:
    settings = ("listeners.default.proxy_protocol=true", "node.trusted_proxies=[127.0.0.1]")
    assert all(listener.proxy_protocol for listener in read_listeners(load(FILE, {}, settings)))


def test_each_key_of_the_store_is_shown_with_its_default() -> None:
    assert yaml.safe_load(FILE.read_text())["plugins"][STORE] == asdict(MongoPersistencePlugin.Config())


def test_each_key_of_the_directorys_pool_is_shown_with_its_default() -> None:
    shown = yaml.safe_load(FILE.read_text())["storage"]
    assert shown["directory_pool"] == DirectoryPool().model_dump()


def test_each_key_of_the_cluster_is_shown_with_its_default() -> None:
    shown = yaml.safe_load(FILE.read_text())["cluster"]
    assert shown == Cluster().model_dump() | {"url": shown["url"]}


def test_each_other_key_has_its_default() -> None:
    shown = yaml.safe_load(FILE.read_text())
    config = load(FILE, {}, ()).model_dump()
    plain = type(load(FILE, {}, ()))(listeners={}, plugins={}).model_dump()
    for section in set(shown) - {"listeners", "plugins", "cluster", "storage"}:
        assert config[section] == plain[section]


def test_each_key_has_its_reason() -> None:
    """A comment beside it, or on the line after."""
    lines = FILE.read_text().splitlines()
    keys = [
        line for line in lines if line.startswith("  ") and ":" in line and not line.strip().startswith("#")
    ]
    plain = ("type: tcp", "allow_anonymous: false", "TopicRulesPlugin: {}")
    bare = [line for line in keys if "#" not in line and not line.rstrip().endswith((":", *plain))]
    assert not bare
