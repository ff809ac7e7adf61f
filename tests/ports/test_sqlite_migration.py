"""SQLite files of earlier versions."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.domain.errors import DuplicateMessageError
from broker.domain.message import Count, Entry, read_body
from broker.ports import DedupKey, Located, PacketIds, SessionKey
from plugins.persistence.sqlite import (
    Database,
    SqliteConversationStore,
    SqliteMessageLog,
    SqliteStateStore,
    open_database,
)
from plugins.persistence.sqlite.schema import MENTIONS, STEPS

if TYPE_CHECKING:
    from tests.ports.conftest import Scribe
from tests.ports.sqlite_kit import (
    MUCH,
    asking,
    texts,
    texts_of,
)

# --- files of earlier versions --------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parley.db"


@pytest.fixture
async def migrated(path: Path) -> AsyncIterator[Database]:
    """A file as schema 1 had it (a dump of one, in schema_1.sql), opened."""
    connection = sqlite3.connect(path)
    connection.executescript(Path(__file__).with_name("schema_1.sql").read_text(encoding="utf-8"))
    connection.close()
    database = open_database(path)
    yield database
    await database.close()


async def test_messages_of_schema_1_are_kept(migrated: Database) -> None:
    log = SqliteMessageLog(migrated)
    assert await texts(log, "p:alice:bob") == ["one", "two", "seven"]
    assert await texts(log, "g:team") == ["three", "five", "eight"]
    assert await texts(log, "users/carol/inbox") == ["four"]
    entries = await log.read("users/alice/inbox", 0, 10, MUCH)
    assert [(entry.offset, entry.qos) for entry in entries] == [(1, 1), (2, 2), (3, 0), (4, 1)]
    assert await migrated.read(asking("PRAGMA integrity_check")) == [("ok",)]
    assert await migrated.read(asking("SELECT max(version) FROM schema_version")) == [(len(STEPS),)]


async def test_messages_of_schema_1_are_located_by_id(migrated: Database) -> None:
    log = SqliteMessageLog(migrated)
    wanted = {}
    for name in ("p:alice:bob", "g:team", "p:carol:carol", "p:al-x.1:alice"):
        for entry in await log.read(name, 0, 10, MUCH):
            wanted[int(read_body(entry.body).id)] = Located(name, entry.offset, entry.body)
    assert len(wanted) == 8
    assert await log.locate(list(wanted)) == wanted
    assert await migrated.read(asking("SELECT count(*) FROM ids")) == [(8,)]


async def test_messages_of_schema_1_stay_stored_once(migrated: Database, scribe: "Scribe") -> None:
    log = SqliteMessageLog(migrated)
    known = {
        DedupKey("alice", "p:alice:bob", "c-1"): "one",
        DedupKey("bob", "p:alice:bob", "c-1"): "two",
        DedupKey("alice", "g:team", "c-1"): "three",
        DedupKey("alice", "g:team", "c-2"): "eight",
    }
    found = await log.find([*known, DedupKey("bob", "g:team", "c-1")])
    assert {key: texts_of([Entry(1, body)])[0] for key, body in found.items()} == known
    scribe.heads["g:team"] = 3
    with pytest.raises(DuplicateMessageError):
        await log.append([scribe.group("team", "again", "c-1")])
    scribe.heads["g:team"] = 3
    await log.append([scribe.group("team", "nine", "c-1", sender="bob")])
    assert await texts(log, "g:team") == ["three", "five", "eight", "nine"]


async def test_conversations_of_schema_1_are_listed(migrated: Database) -> None:
    conversations = SqliteConversationStore(migrated)
    wanted = {
        "alice": ["p:al-x.1:alice", "p:alice:bob"],
        "bob": ["p:alice:bob"],
        "carol": ["p:carol:carol"],
        "al-x.1": ["p:al-x.1:alice"],
    }
    for user, listed in wanted.items():
        assert await conversations.private_conversations(user) == listed
    assert await migrated.read(asking("SELECT count(*) FROM conversations")) == [(5,)]
    for user, own in {"alice": (3, 3), "bob": (2, 2), "carol": (0, 0)}.items():
        states = await conversations.states(user, ["p:alice:bob", "g:team"])
        assert [(s.head_seq, s.own_seq, s.changed_at) for s in states] == [(3, own[0], 0), (3, own[1], 0)]
        floors = await conversations.floors(user)
        assert floors == dict.fromkeys(wanted[user], None), "what they were is not known"


async def test_entries_of_schema_1_are_numbered(migrated: Database, scribe: "Scribe") -> None:
    log, conversations = SqliteMessageLog(migrated), SqliteConversationStore(migrated)
    wanted = {"p:alice:bob": 3, "g:team": 3, "p:carol:carol": 1, "p:al-x.1:alice": 1}
    for name, head in wanted.items():
        entries = await log.read(name, 0, 10, MUCH)
        assert [read_body(entry.body).n for entry in entries] == list(range(1, head + 1))
    assert await log.counts(list(wanted)) == {name: Count(head, head) for name, head in wanted.items()}
    (state,) = await conversations.states("bob", ["p:alice:bob"])
    assert (state.messages, state.seen, state.own_seq) == (3, 2, 2)


async def test_mentions_of_an_earlier_schema_are_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bodies = [
        b'{"id":"1","content":"hi","mentions":["bob","carol"]}',
        b'{"id":"2","content":"hi","mentions":"all"}',
        b'{"id":"3","content":"\\"mentions\\":[\\"bob\\"]"}',
        b'{"id":"4","content":{"mentions":["bob"]}}',
        b'{"id":"5","content":null,"recalled_at":1}',
        b'{"id":"6","mentions":["bob"]',  # damaged
        b'\xff\x00"mentions":["bob"]',
        b'{"id":"8","content":"hi","mentions":["bob","bob"]}',
    ]
    with monkeypatch.context() as earlier:
        earlier.setattr("plugins.persistence.sqlite.schema.STEPS", STEPS[: STEPS.index(MENTIONS)])
        await open_database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO names VALUES (1, 'g:team'), (2, 'users/bob/inbox')")
    rows = [(1 << 32 | seq, 2, 1, body, None, seq, seq) for seq, body in enumerate(bodies, start=1)]
    connection.executemany("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    database = open_database(path)
    conversations = SqliteConversationStore(database)
    rows = await database.read(asking("SELECT user, message % (1 << 32) FROM mentions"))
    ((carol,),) = await database.read(asking("SELECT id FROM names WHERE name = 'users/carol/inbox'"))
    assert rows == [(0, 2), (2, 1), (2, 8), (carol, 1)]
    for user, seq in {"bob": 8, "carol": 2, "dave": 2}.items():
        assert await conversations.mentions(user, {"g:team": 0}) == {"g:team": seq}
    await database.close()


async def test_sessions_of_schema_1_are_kept(migrated: Database) -> None:
    states = SqliteStateStore(migrated)
    state = await states.load(SessionKey("alice", "phone"))
    assert state is not None
    assert (state.cursors, len(state.queue)) == ({"users/alice/inbox": 2, "g:team": 1}, 1)
    assert await states.live_retained() == ["users/alice/presence"]
    assert state.packet_ids == PacketIds(32767, 32767), "lower ones may be held"
