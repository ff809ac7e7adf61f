"""What is SQLite's own: the file, its schema, its settings, and a disk that fails."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.domain.errors import DuplicateMessageError, StoreError, StoreUnavailableError
from broker.domain.message import Count, Entry, read_body
from broker.ports import DedupKey, Located, Moved, PacketIds, Retained, Saved, SessionKey, SessionState
from plugins.persistence.open_files import OpenFiles
from plugins.persistence.sqlite import (
    Database,
    SqliteConversationStore,
    SqliteMessageLog,
    SqliteStateStore,
    open_database,
)
from plugins.persistence.sqlite.schema import MENTIONS, STEPS, migrate
from tests.subscribed import subscribed

if TYPE_CHECKING:
    from tests.ports.conftest import Scribe

MUCH = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parley.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = open_database(path)
    yield database
    await database.close()


def asking(sql: str) -> Callable[[sqlite3.Connection], list[tuple[object, ...]]]:
    return lambda connection: connection.execute(sql).fetchall()


def texts_of(entries: list[Entry]) -> list[str]:
    return [bytes(read_body(entry.body).content).decode().strip('"') for entry in entries]


async def texts(log: SqliteMessageLog, name: str) -> list[str]:
    return texts_of(await log.read(name, 0, 1000, MUCH))


# --- the file -------------------------------------------------------------------------------


async def test_what_is_acknowledged_survives_a_power_cut(database: Database) -> None:
    assert await database.write(asking("PRAGMA journal_mode")) == [("wal",)]
    assert await database.write(asking("PRAGMA synchronous")) == [(2,)]  # FULL
    assert await database.write(asking("PRAGMA foreign_keys")) == [(1,)]


async def test_the_reader_cannot_write(database: Database) -> None:
    with pytest.raises(StoreError):
        await database.read(asking("INSERT INTO names (name) VALUES ('x')"))
    assert await database.read(asking("SELECT * FROM names")) == []


async def test_the_schema_says_its_version(database: Database) -> None:
    assert await database.read(asking("SELECT max(version) FROM schema_version")) == [(len(STEPS),)]


async def test_migrating_again_changes_nothing(path: Path, database: Database, scribe: "Scribe") -> None:
    await SqliteMessageLog(database).append([scribe.group("team", "kept")])
    look = "SELECT * FROM schema_version"
    schema = await database.read(asking("SELECT sql FROM sqlite_schema"))
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection)
    connection.close()
    await open_database(path).close()
    assert await database.read(asking(look)) == [(n + 1,) for n in range(len(STEPS))]
    assert await database.read(asking("SELECT sql FROM sqlite_schema")) == schema
    assert await texts(SqliteMessageLog(database), "g:team") == ["kept"]


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    await open_database(path).close()
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO schema_version VALUES (?)", (len(STEPS) + 1,))
    connection.commit()
    connection.close()
    for _ in range(2):
        with pytest.raises(StoreError, match=str(len(STEPS) + 1)):
            open_database(path)
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT max(version) FROM schema_version").fetchone() == (len(STEPS) + 1,)
    connection.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    content = b"These are my notes, not a database. " * 100
    path.write_bytes(content)
    with pytest.raises(StoreError, match=path.name):
        open_database(path)
    assert path.read_bytes() == content


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "parley.db"):
        with pytest.raises(StoreError):
            open_database(path)


async def test_a_step_that_fails_is_undone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*STEPS, "CREATE TABLE half_done (id INTEGER); CREATE TABLE names (id INTEGER);")
    monkeypatch.setattr("plugins.persistence.sqlite.schema.STEPS", broken)
    with pytest.raises(StoreError):
        open_database(path)
    monkeypatch.undo()
    database = open_database(path)
    assert await database.read(asking("SELECT max(version) FROM schema_version")) == [(len(STEPS),)]
    assert await database.read(asking("SELECT * FROM sqlite_schema WHERE name = 'half_done'")) == []
    await database.close()


async def test_two_stores_on_one_file_see_the_same(path: Path, database: Database, scribe: "Scribe") -> None:
    other = open_database(path)
    await SqliteMessageLog(database).append([scribe.group("team", "a")])
    await SqliteMessageLog(other).append([scribe.group("team", "b")])
    assert await texts(SqliteMessageLog(database), "g:team") == ["a", "b"]
    await other.close()


# --- files of earlier versions --------------------------------------------------------------


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


async def test_a_private_message_changes_five_rows(database: Database, scribe: "Scribe") -> None:
    """The message, its id, two entries, and the sender's last message: nothing for counting."""
    log = SqliteMessageLog(database)
    await log.append([scribe.private("alice", "bob"), scribe.private("bob", "alice")])
    changes = asking("SELECT total_changes()")
    before = (await database.write(changes))[0][0]
    await log.append([scribe.private("alice", "bob")])
    assert (await database.write(changes))[0][0] == before + 5


async def test_a_batch_is_written_in_few_steps(database: Database, scribe: "Scribe") -> None:
    """Python's lock is given away in each step, and who commits must wait for it while the node computes."""
    log = SqliteMessageLog(database)
    await log.append([scribe.private("mallory", "mallory")])
    steps: list[str] = []
    database._writer.set_trace_callback(steps.append)
    await log.append([scribe.private("mallory", "mallory", f"{number}") for number in range(500)])
    database._writer.set_trace_callback(None)
    assert len(steps) < 60  # with a step for each row: more than 1500
    assert await texts(log, "users/mallory/inbox") == ["hi", *map(str, range(500))]


async def test_mentions_cost_a_row_each(database: Database, scribe: "Scribe") -> None:
    log = SqliteMessageLog(database)
    await log.append([scribe.group("team"), scribe.private("alice", "bob"), scribe.private("alice", "carol")])
    changes = asking("SELECT total_changes()")
    for mentions, rows in ((None, 0), (["bob"], 1), (["bob", "carol", "bob"], 2), ("all", 1)):
        before = (await database.write(changes))[0][0]
        await log.append([scribe.group("team", mentions=mentions)])
        assert (await database.write(changes))[0][0] == before + 3 + rows


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


# --- transactions ---------------------------------------------------------------------------


async def test_a_write_that_raises_is_undone(database: Database) -> None:
    def job(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO names (name) VALUES ('x')")
        raise LookupError("in between")

    with pytest.raises(LookupError):
        await database.write(job)
    assert await database.read(asking("SELECT name FROM names")) == []
    await database.write(asking("INSERT INTO names (name) VALUES ('y')"))
    assert await database.read(asking("SELECT name FROM names")) == [("y",)]


async def test_what_sqlite_cannot_do_is_a_store_error(database: Database) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        await database.write(asking("INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(StoreError, match="nowhere"):
        await database.read(asking("SELECT * FROM nowhere"))


async def test_changes_of_state_are_made_all_or_none(database: Database) -> None:
    states = SqliteStateStore(database)
    key = SessionKey("alice", "phone")
    with pytest.raises((StoreError, OverflowError)):
        await states.apply(
            [
                Saved(key, SessionState(subscribed({"a": 1}), {}, [], [], []), 1),
                Retained("a", b"x", 1),
                Moved(key, {"g:team": 1 << 70}),
            ]
        )
    assert await states.load(key) is None
    assert await states.retained("#", "", 10) == []


async def test_jobs_are_done_in_the_order_given(database: Database) -> None:
    states = SqliteStateStore(database)
    key = SessionKey("alice", "phone")
    found = []
    calls: list[Coroutine[object, object, object]] = []
    for i in range(20):
        calls.append(states.apply([Saved(key, SessionState({}, {"g:team": i}, [], [], []), 1)]))
        calls.append(states.load(key))
    for state in (await asyncio.gather(*calls))[1::2]:
        assert isinstance(state, SessionState)
        found.append(state.cursors["g:team"])
    assert found == list(range(20))


# --- a disk that fails ----------------------------------------------------------------------


def _no_commit(action: int, argument: str | None, *_rest: str | None) -> int:
    denied = action == sqlite3.SQLITE_TRANSACTION and argument == "COMMIT"
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK


@pytest.mark.parametrize("lost_first", [True, False])
async def test_a_commit_that_fails_leaves_nothing(path: Path, scribe: "Scribe", lost_first: bool) -> None:
    """With a WAL a full disk shows at COMMIT, when all of the batch seemed to be written."""
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    migrate(writer)
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database = Database(writer, reader, OpenFiles(path))
    log = SqliteMessageLog(database)
    doomed = [scribe.group("lost", "lost", "c-1"), scribe.private("eve", "mallory", "lost")]
    writer.set_authorizer(_no_commit)
    with pytest.raises(StoreError):
        await log.append(doomed)
    writer.set_authorizer(None)
    assert await log.heads(["g:lost", "users/mallory/inbox"]) == {"g:lost": 0, "users/mallory/inbox": 0}
    scribe.heads.clear()
    again = [scribe.group("lost", "again", "c-1"), scribe.private("eve", "mallory", "again")]
    new = [scribe.group("one", "one"), scribe.private("alice", "bob", "private")]
    for batch in (again, new) if lost_first else (new, again):
        await log.append(batch)
    for _ in range(2):
        assert await texts(log, "g:one") == ["one"]
        assert await texts(log, "g:lost") == ["again"]
        assert await texts(log, "users/bob/inbox") == ["private"]
        assert await texts(log, "users/mallory/inbox") == ["again"]
        assert set(await log.find([DedupKey("alice", "g:lost", "c-1")])) == {
            DedupKey("alice", "g:lost", "c-1")
        }
        await database.close()
        database = open_database(path)
        log = SqliteMessageLog(database)
    await database.close()


async def test_a_full_disk_is_a_store_error_and_passes(database: Database, scribe: "Scribe") -> None:
    log = SqliteMessageLog(database)
    await log.append([scribe.group("team", "before")])
    pages = (await database.write(asking("PRAGMA page_count")))[0][0]
    await database.write(asking(f"PRAGMA max_page_count = {pages}"))
    heads = dict(scribe.heads)
    with pytest.raises(StoreError, match="full"):
        await log.append([scribe.group("team", "x" * 100_000), scribe.group("other", "y")])
    scribe.heads = heads
    assert await texts(log, "g:team") == ["before"]
    await database.write(asking("PRAGMA max_page_count = 1000000"))
    await log.append(
        [scribe.group("another", "z"), scribe.group("team", "after"), scribe.group("other", "y")]
    )
    assert await texts(log, "g:team") == ["before", "after"]
    assert await texts(log, "g:other") == ["y"]
    assert await texts(log, "g:another") == ["z"]


@pytest.mark.parametrize("file", ["parley.db", "parley.db-wal"])
async def test_a_file_that_is_put_back_has_nothing_of_what_failed(
    path: Path, database: Database, scribe: "Scribe", file: str
) -> None:
    """So that a message without `client_msg_id` is not stored twice when it is tried again."""
    log = SqliteMessageLog(database)
    await log.append([scribe.group("team", "before")])
    heads = dict(scribe.heads)
    (path.parent / file).rename(path.parent / "aside")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="removed or replaced"):
            await log.append([scribe.group("team", "after")])
        scribe.heads = dict(heads)
    (path.parent / "aside").rename(path.parent / file)
    assert await texts(log, "g:team") == ["before"]
    await log.append([scribe.group("team", "after")])
    assert await texts(log, "g:team") == ["before", "after"]
