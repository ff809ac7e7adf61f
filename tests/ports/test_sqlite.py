"""What is SQLite's own: the file, its schema, its settings, and a disk that fails."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.domain.errors import StoreError, StoreUnavailableError
from broker.ports import DedupKey, Moved, Retained, Saved, SessionKey, SessionState
from plugins.persistence.open_files import OpenFiles
from plugins.persistence.sqlite import (
    Database,
    SqliteMessageLog,
    SqliteStateStore,
    open_database,
)
from plugins.persistence.sqlite.schema import STEPS, migrate
from tests.subscribed import subscribed

if TYPE_CHECKING:
    from tests.ports.conftest import Scribe
from tests.ports.sqlite_kit import (
    asking,
    texts,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parley.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = open_database(path)
    yield database
    await database.close()


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
