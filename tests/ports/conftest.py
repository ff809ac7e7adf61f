"""The implementations that the suites of the ports run against."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from broker.domain.message import Amendment, Content, Stamped, draft, stamp
from broker.domain.topics import Topic, parse_topic
from broker.ports import ConversationStore, MessageLog, StateStore
from plugins.persistence.sqlite import (
    Database,
    SqliteConversationStore,
    SqliteMessageLog,
    SqliteStateStore,
    open_database,
)


class SqliteStores:
    """All stores on one file."""

    log: MessageLog
    states: StateStore
    conversations: ConversationStore

    def __init__(self, folder: Path) -> None:
        self.path = folder / "parley.db"
        self.database: Database

    async def open(self) -> None:
        self.database = open_database(self.path)
        self.log = SqliteMessageLog(self.database)
        self.states = SqliteStateStore(self.database)
        self.conversations = SqliteConversationStore(self.database)

    async def close(self) -> None:
        await self.database.close()

    async def reopen(self) -> None:
        """As after a restart: nothing is left in memory."""
        await self.close()
        await self.open()


class Scribe:
    """Stamps messages as the sequencer does, and counts the places itself."""

    def __init__(self) -> None:
        self.heads: dict[str, int] = {}
        self._ids = 0

    def group(
        self,
        group: str,
        text: str = "hi",
        client_msg_id: str | None = None,
        sender: str = "alice",
        qos: int = 1,
    ) -> Stamped:
        return self._stamp(parse_topic(f"groups/{group}"), sender, text, client_msg_id, qos)

    def private(
        self, sender: str, to: str, text: str = "hi", client_msg_id: str | None = None, qos: int = 1
    ) -> Stamped:
        return self._stamp(parse_topic(f"users/{to}/inbox"), sender, text, client_msg_id, qos)

    def edit(self, target: Stamped, body: bytes, seq: int | None = None) -> Stamped:
        """A message that gives `target`, or the one at `seq`, another body."""
        amends = Amendment(target.seq if seq is None else seq, body)
        return self._stamp(target.draft.topic, target.draft.sender, "edited", None, 1, (amends,))

    def _stamp(
        self,
        topic: Topic,
        sender: str,
        text: str,
        client_msg_id: str | None,
        qos: int,
        amends: tuple[Amendment, ...] = (),
    ) -> Stamped:
        content = Content(msgspec.Raw(msgspec.json.encode(text)), client_msg_id=client_msg_id)
        message = msgspec.structs.replace(draft(sender, topic, content, qos), amends=amends)
        self._ids += 1
        seq, *offsets = [self._next(log) for log in (message.conversation_id, *message.logs)]
        return stamp(message, self._ids, seq, tuple(offsets), 1_764_000_000_000)

    def _next(self, log: str) -> int:
        self.heads[log] = self.heads.get(log, 0) + 1
        return self.heads[log]


@pytest.fixture(params=[SqliteStores], ids=["sqlite"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteStores]:
    """Empty stores of one implementation."""
    stores: SqliteStores = request.param(tmp_path)
    await stores.open()
    yield stores
    await stores.close()


@pytest.fixture
def scribe() -> Scribe:
    return Scribe()
