"""`Upkeep.verify` of the SQLite store: nothing is found in a sound store, and each kind of damage is."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from broker.ports import (
    Finding,
    KeptEvent,
    QueuedMessage,
    Redelivery,
    Retained,
    Saved,
    Seen,
    SessionKey,
    SessionState,
    StateChange,
)
from plugins.persistence.sqlite import Database, SqliteMessageLog, SqliteStateStore, open_database
from plugins.persistence.sqlite.upkeep import SqliteUpkeep
from tests.ports.conftest import Scribe
from tests.subscribed import subscribed

EVENTS = "users/bob/events"
PHONE = SessionKey("bob", "phone")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parley.db"


@pytest.fixture
async def database(path: Path, scribe: Scribe) -> AsyncIterator[Database]:
    """A store with something of everything."""
    database = open_database(path)
    log = SqliteMessageLog(database)
    first = scribe.private("alice", "bob", "first", "c-1")
    await log.append([first, scribe.private("bob", "alice"), scribe.group("team", client_msg_id="c-1")])
    await log.append([scribe.edit(first, _edited(first.body)), scribe.private("alice", "alice")])
    await log.append([scribe.group("team", f"text {number}") for number in range(1200)])
    await log.append([scribe.group("team", mentions="all"), scribe.group("team", mentions=["bob", "eve"])])
    await log.append([scribe.private(f"u{number}", "bob") for number in range(600)])
    await log.append_events([KeptEvent(EVENTS, number, b"{}") for number in range(1, 9)], 5)
    state = SessionState(
        subscribed({"users/bob/#": 1}),
        {"users/bob/inbox": 3, EVENTS: 8, "g:none": 0},
        [Redelivery(1, "users/bob/inbox", 3, 1)],
        [7],
        [QueuedMessage("open/1", b"x", 1)],
    )
    changes: Sequence[StateChange] = [
        Saved(PHONE, state, 0),
        Seen("bob", "p:alice:bob", 0, read=2, delivered=3),
        Retained("open/1", b"x", 1),
    ]
    await SqliteStateStore(database).apply(changes)
    yield database
    await database.close()


def _edited(body: bytes) -> bytes:
    return body.replace(b'"first"', b'"edited"')


async def verify(path: Path) -> list[Finding]:
    return [finding async for report in SqliteUpkeep(path).verify() for finding in report.findings]


async def test_a_sound_store(path: Path, database: Database) -> None:
    reports = [report async for report in SqliteUpkeep(path).verify()]
    assert [finding for report in reports for finding in report.findings] == []
    assert all(0 <= report.done <= report.total for report in reports)
    assert sum(report.checked for report in reports) > 4000
    assert max(report.checked for report in reports) < 1100  # bounded


async def test_an_empty_store(path: Path) -> None:
    await open_database(path).close()
    assert await verify(path) == []


async def test_writing_meanwhile_is_no_damage(path: Path, database: Database, scribe: Scribe) -> None:
    """A write between any two reports, of everything a check could take for damage."""
    log, states = SqliteMessageLog(database), SqliteStateStore(database)
    findings: list[Finding] = []
    async for number, report in _numbered(SqliteUpkeep(path)):
        findings += report
        await log.append([scribe.private("alice", "bob"), scribe.group("team"), scribe.private("zoe", "bob")])
        await log.append_events([KeptEvent(EVENTS, 9 + number, b"{}")], 2)
        await states.apply([Seen("bob", "p:alice:bob", 0, read=4 + number)])
        state = SessionState(subscribed({}), {"users/bob/inbox": 605 + 2 * number}, [], [], [])
        await states.apply([Saved(PHONE, state, 0)])
    assert findings == []


async def _numbered(upkeep: SqliteUpkeep) -> AsyncIterator[tuple[int, Sequence[Finding]]]:
    number = 0
    async for report in upkeep.verify():
        yield number, report.findings
        number += 1


LOG = "(SELECT id FROM names WHERE name = '{}')"
TEAM, PRIVATE, INBOX = (LOG.format(name) for name in ("g:team", "p:alice:bob", "users/bob/inbox"))


@pytest.mark.parametrize(
    ("damage", "kind", "where", "words"),
    [
        (f"DELETE FROM messages WHERE key = ({TEAM} << 32) + 700", "gap", "g:team", "700 missing"),
        (f"DELETE FROM messages WHERE key = ({TEAM} << 32) + 700", "dangling", "id ", "no such message"),
        (f"DELETE FROM messages WHERE key = ({PRIVATE} << 32) + 2", "dangling", "users/bob/inbox 2", "no p:"),
        (f"DELETE FROM messages WHERE key = ({PRIVATE} << 32) + 2", "dangling", "last message of", "no p:"),
        (f"DELETE FROM messages WHERE key = ({PRIVATE} << 32) + 1", "dangling", "amendment", "no p:"),
        (f"DELETE FROM messages WHERE key = ({TEAM} << 32) + 1202", "dangling", "mention of all", "no such"),
        (
            f"DELETE FROM messages WHERE key = ({TEAM} << 32) + 1203",
            "dangling",
            "mention of users/bob",
            "no such",
        ),
        (
            "UPDATE mentions SET user = 9999999 WHERE user = 0",
            "dangling",
            "mention of user 9999999",
            "no name",
        ),
        (f"DELETE FROM entries WHERE key = ({INBOX} << 32) + 2", "gap", "users/bob/inbox", "2 missing"),
        (
            f"DELETE FROM entries WHERE key >> 32 = {INBOX}",
            "gap",
            "users/bob/inbox",
            "lacks p:alice:bob 1 to 3",
        ),
        (
            f"UPDATE entries SET message = ({PRIVATE} << 32) + 1 WHERE key = ({INBOX} << 32) + 2",
            "duplicate",
            "users/bob/inbox 2",
            "p:alice:bob 1 is there before",
        ),
        ("DELETE FROM ids WHERE message % (1 << 32) = 700", "dangling", "g:team 700", "cannot be looked up"),
        (
            "UPDATE ids SET message = message + 1 WHERE message % (1 << 32) = 700",
            "duplicate",
            "g:team 700",
            "701",
        ),
        ("DELETE FROM sent WHERE client_msg_id = 'c-1'", "dangling", "g:team 1", "client_msg_id"),
        ("DELETE FROM events WHERE key % (1 << 32) = 6", "gap", EVENTS, "6 missing"),
        (
            "UPDATE events SET body = x'ff', checksum = NULL WHERE key % (1 << 32) = 6",
            "damaged",
            f"{EVENTS} 6",
            "cannot be read",
        ),
        (
            "UPDATE messages SET checksum = NULL, body = x'7b' WHERE n = 700",
            "damaged",
            "g:team 700",
            "cannot be read",
        ),
        (
            "UPDATE messages SET checksum = NULL, body = (SELECT body FROM messages WHERE n = 9) "
            "WHERE n = 700",
            "damaged",
            "",
            "9",
        ),
        ("UPDATE messages SET body = x'7b7d' WHERE n = 700", "checksum", "g:team 700", "not the one"),
        ("UPDATE events SET body = x'7b7d20'", "checksum", f"{EVENTS} 8", "not the one"),
        ("UPDATE messages SET n = 4 WHERE n = 700", "damaged", "g:team 700", "should be 700"),
        ("UPDATE messages SET sender = 1 WHERE n = 700", "damaged", "g:team 700", "from alice"),
        ("UPDATE cursors SET offset = 700", "cursor", "session phone of bob", "ends at 603"),
        ("UPDATE cursors SET offset = 5 WHERE log = 'g:none'", "cursor", "session phone of bob", "ends at 0"),
        (
            "UPDATE conversations SET read_seq = 4 WHERE read_seq = 2",
            "cursor",
            "users/bob/inbox in p:",
            "up to 4",
        ),
        ("UPDATE sessions SET inflight = x'c1'", "damaged", "session phone of bob", "cannot be read"),
        ("UPDATE session_queue SET message = x'c1'", "damaged", "session phone of bob", "queued"),
        ("UPDATE retained SET properties = x'c1'", "damaged", "retained message on open/1", "cannot be read"),
        ("DELETE FROM names WHERE name = 'g:team'", "dangling", "table messages", "has no name"),
        (f"DELETE FROM conversations WHERE user = {INBOX}", "dangling", "p:alice:bob", "not listed for bob"),
        ("DELETE FROM sessions", "dangling", "table cursors", "sessions"),
    ],
)
async def test_damage(path: Path, database: Database, damage: str, kind: str, where: str, words: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(damage).rowcount != 0
        connection.commit()
    found = await verify(path)
    assert any(f.kind == kind and f.where.startswith(where) and words in f.detail for f in found), found


async def test_a_damaged_file(path: Path, database: Database) -> None:
    """Pages that are no pages: found, and the check goes on to its end."""
    await database.write(lambda connection: None)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entries'").fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    found = await verify(path)
    assert any(f.kind == "damaged" and "entries" in f.where + f.detail for f in found), found


async def test_the_check_can_be_left(path: Path, database: Database) -> None:
    reports = SqliteUpkeep(path).verify()
    await anext(reports)
    await asyncio.wait_for(reports.aclose(), 10)


async def test_a_copy_is_of_one_moment(
    path: Path, database: Database, scribe: Scribe, tmp_path: Path
) -> None:
    """Messages are written while the copy is made: each is in it as a whole, or not at all."""
    log = SqliteMessageLog(database)
    folder = tmp_path / "copy"
    folder.mkdir()
    copying = asyncio.create_task(SqliteUpkeep(path).copy(folder))
    while not copying.done():
        await log.append([scribe.private("alice", "bob"), scribe.group("team", "x" * 5000)])
        await asyncio.sleep(0)
    await copying
    await log.append([scribe.group("team")])
    copy = folder / "parley.db"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert await verify(copy) == []
    with closing(sqlite3.connect(copy)) as connection:
        (copied,) = connection.execute("SELECT count(*) FROM messages").fetchone()
    assert 1804 <= copied < scribe.heads["g:team"] + scribe.heads["p:alice:bob"] + 601
