"""Which of the configured plugins hands over the stores."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from amqtt.plugins.base import BasePlugin

from broker.amqtt_edge.loading import find_persistence
from broker.config_sources import ConfigError
from broker.ports import StoreContext
from plugins.persistence.sqlite import SqlitePersistencePlugin
from tests.outside.memory_store import MemoryPersistencePlugin

SQLITE = "plugins.persistence.sqlite.SqlitePersistencePlugin"
MEMORY = "tests.outside.memory_store.MemoryPersistencePlugin"
RULES = "plugins.auth.TopicRulesPlugin"
HERE = "tests.unit.test_loading"


class NotAsync(BasePlugin):
    @classmethod
    def open_stores(cls, options: object, context: StoreContext) -> None: ...


class OfAnInstance(BasePlugin):
    async def open_stores(self, options: object, context: StoreContext) -> None: ...


class OddOptions(BasePlugin):
    class Config:
        url: str


class NeedsOptions(BasePlugin):
    @classmethod
    async def open_stores(cls, options: object, context: StoreContext) -> None: ...

    @dataclass
    class Config:
        url: str


def refused(plugins: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigError) as raised:
        find_persistence(plugins)
    return str(raised.value)


def test_the_plugin_that_hands_over_stores_is_found_among_others() -> None:
    found = find_persistence({RULES: {}, MEMORY: {"capacity": 7}})
    assert found.plugin is MemoryPersistencePlugin
    assert found.options == MemoryPersistencePlugin.Config(capacity=7)
    assert find_persistence({SQLITE: {}, RULES: {}}).plugin is SqlitePersistencePlugin


async def test_what_is_stored_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    persistence = find_persistence({SQLITE: {}})
    for _ in range(2):
        stores = await persistence.open(StoreContext(tmp_path))
        assert await stores.messages.heads(["g:team"]) == {"g:team": 0}
        await stores.close()
    assert [file.name for file in tmp_path.iterdir()] == ["parley.db"]


@pytest.mark.parametrize("plugins", [{}, {RULES: {}}])
def test_none_is_refused_and_one_is_suggested(plugins: dict[str, Any]) -> None:
    assert refused(plugins) == f"plugins: none of them stores messages, add one: {SQLITE}: {{}}"


def test_two_are_refused_by_name() -> None:
    text = f"plugins: only one of them can store messages, remove all but one of {SQLITE}, {MEMORY}"
    assert refused({SQLITE: {}, RULES: {}, MEMORY: {}}) == text


@pytest.mark.parametrize(
    ("plugin", "options", "text"),
    [
        (MEMORY, {"capacitty": 7}, ".capacitty: unknown key"),
        (MEMORY, {"capacity": "much"}, '.capacity: wrong value type for field "capacity"'),
        (MEMORY, 7, ": expected options, found 7"),
        (f"{HERE}.NeedsOptions", {}, '.url: missing value for field "url"'),
        (f"{HERE}.NotAsync", {}, ": open_stores is not an async class method"),
        (f"{HERE}.OfAnInstance", {}, ": open_stores is not an async class method"),
        (f"{HERE}.OddOptions", {}, ": its Config is not a dataclass"),
        (f"{HERE}.refused", {}, ": not an amqtt plugin"),
        (f"{HERE}.Absent", {}, ": "),
        ("nowhere.at.all.Plugin", {}, ": No module named 'nowhere'"),
    ],
)
def test_errors_say_which_plugin(plugin: str, options: object, text: str) -> None:
    said = refused({plugin: options})
    assert said.startswith(f"plugins.{plugin}{text}")
    assert "\n" not in said
