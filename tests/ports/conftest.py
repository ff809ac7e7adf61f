"""The implementations that the suites of the ports run against.

They are persistence plugins, named and opened as a node does it. `--persistence` names one that is not in
this tree, `--persistence-options` its options in YAML, in which `{unique}` becomes a word of each test's own.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import yaml

from broker.amqtt_edge.loading import Persistence, find_persistence
from broker.domain.message import Amendment, Content, Count, Stamped, draft, stamp
from broker.domain.topics import Topic, parse_topic
from broker.ports import ConversationStore, Identified, MessageLog, StateStore, StoreContext, Stores
from tests.ports.directories import Place, empty
from tests.servers import mariadb, mongodb, postgres

Mentions = list[str] | Literal["all"] | None

MONGODB = "plugins.persistence.mongodb.MongoPersistencePlugin"
PLUGINS = [
    "plugins.persistence.sqlite.SqlitePersistencePlugin",
    MONGODB,
    "tests.outside.memory_store.MemoryPersistencePlugin",
]

SERVERS = {"mariadb": mariadb, "postgres": postgres}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--persistence", help="run the suites of the stores with this plugin only")
    parser.addoption("--persistence-options", default="{}", help="its options, in YAML")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "stores" in metafunc.fixturenames:
        # The options are unknown where this file is found after they were read.
        name = metafunc.config.getoption("persistence", None)
        options = metafunc.config.getoption("persistence_options", "{}")
        plugins = PLUGINS if name is None else [name]
        params = [(plugin, options) for plugin in plugins]
        metafunc.parametrize(
            "stores", params, ids=[plugin.split(".")[-2] for plugin in plugins], indirect=True
        )


class OpenedStores:
    """The stores of one implementation. The attributes are the stores that are open now."""

    def __init__(self, persistence: Persistence, data_dir: Path) -> None:
        self._persistence = persistence
        self._context = StoreContext(data_dir)
        self._stores: Stores

    @property
    def log(self) -> MessageLog:
        return self._stores.messages

    @property
    def states(self) -> StateStore:
        return self._stores.states

    @property
    def conversations(self) -> ConversationStore:
        return self._stores.conversations

    @property
    def identified(self) -> Identified:
        return self._stores.identified

    async def open(self) -> None:
        self._stores = await self._persistence.open(self._context)

    async def close(self) -> None:
        await self._stores.close()

    async def reopen(self) -> None:
        """As after a restart."""
        await self.close()
        await self.open()


class Scribe:
    """Stamps messages as the sequencer does, and counts the places itself."""

    def __init__(self) -> None:
        self.heads: dict[str, int] = {}
        self._ids = 0
        self._counts: dict[str, dict[int, Count]] = {}

    def group(
        self,
        group: str,
        text: str = "hi",
        client_msg_id: str | None = None,
        sender: str = "alice",
        qos: int = 1,
        mentions: Mentions = None,
    ) -> Stamped:
        topic = parse_topic(f"groups/{group}")
        return self._stamp(topic, sender, text, client_msg_id, qos, mentions=mentions)

    def private(
        self,
        sender: str,
        to: str,
        text: str = "hi",
        client_msg_id: str | None = None,
        qos: int = 1,
        mentions: Mentions = None,
    ) -> Stamped:
        topic = parse_topic(f"users/{to}/inbox")
        return self._stamp(topic, sender, text, client_msg_id, qos, mentions=mentions)

    def edit(self, target: Stamped, body: bytes, seq: int | None = None, kind: str = "edit") -> Stamped:
        """A message that gives `target`, or the one at `seq`, another body."""
        amends = Amendment(target.seq if seq is None else seq, body)
        return self._stamp(target.draft.topic, target.draft.sender, "edited", None, 1, (amends,), kind)

    def system(self, group: str, sender: str = "alice") -> Stamped:
        return self._stamp(parse_topic(f"groups/{group}"), sender, "changed", None, 1, (), "system")

    def _stamp(
        self,
        topic: Topic,
        sender: str,
        text: str,
        client_msg_id: str | None,
        qos: int,
        amends: tuple[Amendment, ...] = (),
        entry_type: str = "text",
        mentions: Mentions = None,
    ) -> Stamped:
        raw = msgspec.Raw(msgspec.json.encode(text))
        content = Content(raw, entry_type, client_msg_id, mentions=mentions)
        message = msgspec.structs.replace(draft(sender, topic, content, qos), amends=amends)
        self._ids += 1
        seq, *offsets = [self._next(log) for log in (message.conversation_id, *message.logs)]
        # After a failed append a test may set the heads back: the count is that of the entry before.
        counts = self._counts.setdefault(message.conversation_id, {})
        counts[seq] = counts.get(seq - 1, Count()).after(entry_type, seq)
        return stamp(message, self._ids, seq, tuple(offsets), 1_764_000_000_000, counts[seq])

    def _next(self, log: str) -> int:
        self.heads[log] = self.heads.get(log, 0) + 1
        return self.heads[log]


@pytest.fixture
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenedStores]:
    """Empty stores of one implementation."""
    name, options = request.param
    options = yaml.safe_load(options.replace("{unique}", uuid.uuid4().hex))
    async with AsyncExitStack() as used:
        if name == MONGODB and not options:
            options = await used.enter_async_context(mongodb.emptied_database())
        stores = OpenedStores(find_persistence({name: options}), tmp_path)
        await stores.open()
        yield stores
        await stores.close()


# --- the directory ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def databases() -> Iterator[dict[str, str]]:
    """The database of this worker on each server that a test has needed. A test finds it empty: to make the
    tables takes 0.1 s, to empty them 0.01 s."""
    made: dict[str, str] = {}
    yield made
    for kind, database in made.items():
        asyncio.run(SERVERS[kind].drop(database))


@pytest.fixture(params=["sqlite", *SERVERS])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, databases: dict[str, str]
) -> AsyncIterator[Place]:
    """Where an empty directory is, in each database."""
    kind = request.param
    if kind == "sqlite":
        yield tmp_path / "directory.db"
        return
    if kind not in databases:
        databases[kind] = await SERVERS[kind].create()
    yield databases[kind]
    await empty(databases[kind])


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()
