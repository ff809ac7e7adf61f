"""Entries of stores that were written before entries carried `n` are numbered when the store is opened."""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from broker.domain.errors import StoreError
from broker.domain.message import Count, read_body
from plugins.persistence.sqlite import SqliteConversationStore, SqliteMessageLog, numbering, open_database
from plugins.persistence.sqlite.schema import STEPS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "parley.db"


def asking(connection: sqlite3.Connection, sql: str) -> list[tuple[object, ...]]:
    return connection.execute(sql).fetchall()


def older(path: Path, version: int) -> sqlite3.Connection:
    """A file of an earlier schema."""
    connection = sqlite3.connect(path)
    for step in STEPS[:version]:
        assert isinstance(step, str)
        connection.executescript(step)
    connection.executescript(
        "CREATE TABLE schema_version (version INTEGER NOT NULL) STRICT;"
        f"INSERT INTO schema_version VALUES ({version});"
    )
    return connection


def store_older(connection: sqlite3.Connection, types: str) -> None:
    """Store a conversation of bob's and carol's as schema 4 had it. `types`: m for a message, of both in
    turns; e for an edit, by bob; s for a system entry, by carol."""
    connection.execute(
        "INSERT INTO names VALUES (1, 'g:team'), (2, 'users/bob/inbox'), (3, 'users/carol/inbox')"
    )
    for seq, letter in enumerate(types, start=1):
        sender = {"m": 2 + seq % 2, "e": 2, "s": 3}[letter]
        kind = {"m": "text", "e": "edit", "s": "system"}[letter]
        body = (
            f'{{"id":"{seq}","conversation_id":"g:team","conversation_type":"group","seq":{seq},'
            f'"from_user_id":"{"?abc"[sender]}","type":"{kind}","content":"{seq}","created_at":{seq}}}'
        )
        key = 1 << 32 | seq
        connection.execute("INSERT INTO messages VALUES (?, ?, 1, ?, NULL)", (key, sender, body.encode()))
        connection.execute("INSERT INTO ids VALUES (?, ?)", (seq, key))
        connection.execute("INSERT OR REPLACE INTO sent VALUES (?, 1, '', ?)", (sender, key))
        connection.execute("INSERT INTO sent VALUES (?, 1, ?, ?)", (sender, f"c-{seq}", key))
    connection.commit()


NUMBERED = {"smmesmes": ([0, 1, 2, 2, 2, 3, 3, 3], 6), "m": ([1], 1), "ss": ([0, 0], 0)}


@pytest.mark.parametrize("types", NUMBERED)
@pytest.mark.parametrize("killed_after", [None, 1, 3])
async def test_entries_of_schema_4_are_numbered(
    path: Path, monkeypatch: pytest.MonkeyPatch, types: str, killed_after: int | None
) -> None:
    """Also if the node is killed in the middle of it."""
    connection = older(path, 4)
    store_older(connection, types)
    connection.close()
    monkeypatch.setattr(numbering, "_ROWS", 2)
    if killed_after is not None:
        _be_killed(path, monkeypatch, killed_after)
    database = open_database(path)
    log = SqliteMessageLog(database)
    entries = await log.read("g:team", 0, 100, 1 << 30)
    numbers, last = NUMBERED[types]
    assert [read_body(entry.body).n for entry in entries] == numbers
    assert [entry.body.count(b'"n":') for entry in entries] == [1] * len(types)
    assert await log.counts(["g:team"]) == {"g:team": Count(numbers[-1], last)}
    for user, number in (("bob", 2), ("carol", 3)):
        mine = [seq for seq, letter in enumerate(types, start=1) if letter == "m" and 2 + seq % 2 == number]
        (state,) = await SqliteConversationStore(database).states(user, ["g:team"])
        assert state.own_seq == max(mine, default=0)
        assert (state.last_seq, state.messages) == (last, numbers[-1])
    rows = await database.read(lambda it: asking(it, "SELECT count(*) FROM sent WHERE client_msg_id <> ''"))
    assert rows == [(len(types),)]
    assert await database.read(lambda it: asking(it, "SELECT max(version) FROM schema_version")) == [
        (len(STEPS),)
    ]
    await database.close()


def _be_killed(path: Path, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Open the file, and be killed after so many transactions of the numbering."""
    write, left = numbering._write, [writes]

    def dying(connection: sqlite3.Connection, changes: Any) -> None:
        if left[0] == 0:
            raise sqlite3.OperationalError("killed")
        left[0] -= 1
        write(connection, changes)

    monkeypatch.setattr(numbering, "_write", dying)
    with suppress(StoreError):  # a small store is done before
        open_database(path)
    monkeypatch.setattr(numbering, "_write", write)


async def test_a_large_store_takes_little_memory(path: Path) -> None:
    """Entries are held a few MiB at a time."""
    connection = older(path, 4)
    connection.execute("INSERT INTO names VALUES (1, 'g:team'), (2, 'users/bob/inbox')")
    body = '{{"id":"{}","type":"text","content":"{}"}}'
    text = "x" * 100_000
    for seq in range(1, 401):  # 40 MB
        entry = body.format(seq, text).encode()
        connection.execute("INSERT INTO messages VALUES (?, 2, 1, ?, NULL)", (1 << 32 | seq, entry))
    connection.commit()
    most = max(sum(len(row[2]) for row in rows) for rows in numbering._chunks(connection))
    assert most <= numbering._BYTES + len(entry)
    connection.close()
    database = open_database(path)
    assert await SqliteMessageLog(database).counts(["g:team"]) == {"g:team": Count(400, 400)}
    assert path.with_name("parley.db-wal").stat().st_size < 30 * 1024 * 1024
    await database.close()
