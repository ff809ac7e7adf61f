"""Lists of thousands ask the stores a bounded number of times, on real stores."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.core.access import Access, MessageLimits
from bridge.core.ends import Ends
from bridge.core.operations import Caller
from bridge.handlers.conversations import Conversations, ListParameters, ListResult
from bridge.handlers.messages import GetParameters, Messages
from bridge.handlers.read_counts import ReadCounts, ReadCountsParameters
from broker.ports import Group, GroupWrite, Membership, Seen
from plugins.persistence.sql_directory import SqlDirectory
from plugins.persistence.sqlite import (
    Database,
    SqliteConversationStore,
    SqliteMessageLog,
    SqliteStateStore,
    open_database,
)
from tests.ports.conftest import Scribe
from tests.ports.directories import add_many, opened

CONVERSATIONS = 2000
MEMBERS = 10_000
ALICE = Caller("alice")


class FixedClock:
    """The clock."""

    def now_ms(self) -> int:
        return 1_800_000_000_000

    growing_ms = now_ms


class Counted:
    """A store or directory whose calls are counted."""

    def __init__(self, store: Any, calls: Counter[str]) -> None:
        self._store = store
        self._calls = calls

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            self._calls[name] += 1
            return await getattr(self._store, name)(*arguments)

        return call


class World:
    """Real stores and the handlers on them, with every query counted."""

    def __init__(self, database: Database, directory: SqlDirectory) -> None:
        self.calls: Counter[str] = Counter()
        self.log = SqliteMessageLog(database)
        self.states = SqliteStateStore(database)
        self.directory = directory
        self.scribe = Scribe()
        log: Any = Counted(self.log, self.calls)
        conversations: Any = Counted(SqliteConversationStore(database), self.calls)
        counted: Any = Counted(directory, self.calls)
        nothing: Any = None
        access = Access(counted, conversations, FixedClock(), MessageLimits(0, 0, 100), Ends(1))
        self.conversations = Conversations(log, conversations, counted, access, nothing, nothing)
        self.messages = Messages(log, counted, access, lambda _: None)
        self.read_counts = ReadCounts(log, conversations, counted, access)

    async def make_group(self, group: str, members: list[str]) -> None:
        put = [Membership(group, user, "owner" if user == "alice" else "member", 0) for user in members]
        await self.directory.write_group(GroupWrite(Group(group, group, "alice", 1, len(put)), put=put), [])

    def counted(self) -> Counter[str]:
        """The queries since the last call."""
        calls = self.calls.copy()
        self.calls.clear()
        return calls


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = open_database(tmp_path / "parley.db")
    async with opened(tmp_path / "directory.db") as directory:
        await add_many(tmp_path / "directory.db", ["alice", *_users(MEMBERS)])
        yield World(database, directory)
    await database.close()


def _users(count: int) -> list[str]:
    return [f"user{number:05}" for number in range(count)]


async def _list(world: World, limit: int) -> list[ListResult]:
    """All pages."""
    pages = []
    cursor = ""
    while True:
        parameters = ListParameters(limit=limit, cursor=cursor)
        pages.append(await world.conversations.list_conversations(ALICE, parameters))
        cursor = pages[-1].next
        if not cursor:
            return pages


async def test_a_list_of_2000_conversations(world: World) -> None:
    users = _users(CONVERSATIONS)
    said = [world.scribe.private(user, "alice", mentions=["alice"]) for user in users]
    for number in range(20):
        await world.make_group(f"g{number}", ["alice"])
        said.append(world.scribe.group(f"g{number}"))
    await world.log.append(said)
    pages = await _list(world, limit=100)
    assert sum(len(page.conversations) for page in pages) == CONVERSATIONS + 20
    assert max(world.counted().values()) == len(pages) == 21, "each query once a page, and none for each row"
    (first, *_) = pages
    views = {view.conversation_id: view for view in first.conversations}
    last = views[f"p:alice:{users[-1]}"]
    assert views["g:g19"].group is not None
    assert (last.mentioned_seq, last.peer and last.peer.user_id) == (1, users[-1])
    assert first.cursors["users/alice/inbox"] == CONVERSATIONS
    assert len(first.cursors) == 21


async def test_messages_by_id_from_100_conversations(world: World) -> None:
    said = [world.scribe.private(user, "alice") for user in _users(50)]
    for number in range(50):
        await world.make_group(f"g{number}", ["alice"])
        said.append(world.scribe.group(f"g{number}"))
    await world.log.append(said)
    world.counted()
    found = await world.messages.get(ALICE, GetParameters([str(each.id) for each in said]))
    assert (len(found.messages), found.missing, found.rest) == (100, [], [])
    assert sum(world.counted().values()) <= 4


async def test_readers_of_100_messages_in_a_group_of_10000(world: World) -> None:
    users = _users(MEMBERS - 1)
    await world.make_group("big", ["alice", *users])
    said = [world.scribe.group("big") for _ in range(100)]
    await world.log.append(said)
    # The n-th member has read n % 101 messages.
    await world.states.apply([Seen(user, "g:big", 1, read=n % 101) for n, user in enumerate(users)])
    ids = [str(each.id) for each in said]
    found = await world.read_counts.read_counts(ALICE, ReadCountsParameters("g:big", ids))
    expected = [sum(n % 101 >= seq for n in range(len(users))) for seq in range(1, 101)]
    assert [found.counts[each] for each in ids] == expected
    assert sum(world.counted().values()) <= 40, "by the thousand"
