"""A damaged database file: what is lost is handed out as such, everything else as it was."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.ids import Snowflakes
from broker.domain.message import Body, Content, Entry, read_body, says_the_same
from broker.ports import DedupKey, KeptEvent
from plugins.persistence.sqlite import (
    Database,
    SqliteConversationStore,
    SqliteMessageLog,
    open_database,
)
from plugins.persistence.sqlite.stored import checksum
from tests.ports.conftest import Scribe

MUCH = 10_000_000
LOGS = ("g:team", "p:alice:bob", "users/alice/inbox", "users/bob/inbox")
LAST = 50
HURT = 25
"""The seqs of the last messages, and of those that are damaged."""


@pytest.fixture
async def path(tmp_path: Path, scribe: Scribe) -> Path:
    """A database with messages in a group and of alice to bob, all in the database file itself."""
    file = tmp_path / "parley.db"
    database = open_database(file)
    log = SqliteMessageLog(database)
    await log.append(
        [
            message
            for number in range(1, LAST + 1)
            for message in (
                scribe.group("team", f"group {number}", f"c-{number}"),
                scribe.private("alice", "bob", f"private {number}", f"c-{number}"),
            )
        ]
    )
    await log.append_events([KeptEvent("users/bob/events", n, b'{"event":"x"}') for n in (1, 2)], 10)
    await database.close()
    return file


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def hurt_body(replace: str) -> Callable[[Path], None]:
    return lambda path: change(path, f"UPDATE messages SET body = {replace} WHERE key % (1 << 32) = {HURT}")


def hurt_page(path: Path) -> None:
    """Overwrite the heads of the pages with those messages."""
    data = bytearray(path.read_bytes())
    for text in (b'"content":"group %d"' % HURT, b'"content":"private %d"' % HURT):
        page = data.index(text) // 4096 * 4096
        data[page : page + 8] = b"\xff" * 8
    path.write_bytes(data)


DAMAGES = {
    "a bit": hurt_body("CAST(replace(body, 'group 25', 'grouq 25') AS BLOB)"),
    "not UTF-8": hurt_body("CAST(substr(body, 1, 60) || x'fffe' || substr(body, 63) AS BLOB)"),
    "cut off": hurt_body("substr(body, 1, 40)"),
    "empty": hurt_body("x''"),
    "the id": hurt_body('CAST(\'{"id":"7\' || substr(body, 9) AS BLOB)'),
    "lost": lambda path: change(path, f"DELETE FROM messages WHERE key % (1 << 32) = {HURT}"),
    "a page": hurt_page,
}


def of(entries: list[Entry]) -> dict[int, Body]:
    return {entry.offset: read_body(entry.body) for entry in entries}


def content(body: Body) -> str:
    return bytes(body.content).decode()


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_messages_keep_their_places_in_every_way_to_read(path: Path, damage: str) -> None:
    before = await read_all(path)
    DAMAGES[damage](path)
    if damage == "a bit":  # only the group's message holds the text
        change(path, f"UPDATE messages SET checksum = checksum + 1 WHERE key % (1 << 32) = {HURT}")
    after = await read_all(path)
    for log in LOGS:
        assert list(after[log]) == list(range(1, LAST + 1)), log
        for offset, body in after[log].items():
            was = before[log][offset]
            if body.withheld is None and offset != HURT:
                assert content(body) == content(was)
                continue
            assert (body.withheld, content(body)) == ("damaged", "null")
            assert (body.id, body.conversation_id, body.seq) == (was.id, was.conversation_id, was.seq)
            assert (body.conversation_type, body.group_id) == (was.conversation_type, was.group_id)
            assert body.created_at == Snowflakes.created_ms(int(was.id))
    if damage != "a page":
        assert [n for n, body in after["g:team"].items() if body.withheld] == [HURT]


async def read_all(path: Path) -> dict[str, dict[int, Body]]:
    """All logs, read forwards, backwards, in small chunks, by ids and by keys: which must agree."""
    database = open_database(path)
    log = SqliteMessageLog(database)
    found = {}
    for name in LOGS:
        entries = await log.read(name, 0, 100, MUCH)
        assert await log.read_back(name, 1 << 32, 100, MUCH) == entries
        chunks = [(await log.read(name, after, 1, MUCH))[0] for after in range(LAST)]
        assert chunks == entries
        assert [(await log.read_back(name, n + 1, 1, MUCH))[0] for n in range(1, LAST + 1)] == entries
        found[name] = of(entries)
    for name in ("g:team", "p:alice:bob"):
        bodies = found[name]
        located = await log.locate([int(body.id) for body in bodies.values()])
        assert [read_body(each.body).seq for each in located.values()] == list(bodies)
        keys = [DedupKey("alice", name, f"c-{n}") for n in bodies]
        assert len(await log.find(keys)) == LAST
    await database.close()
    return found


async def test_the_list_of_conversations_knows_the_last_message(path: Path) -> None:
    for damage in ("substr(body, 1, 40)", 'CAST(\'{"id":"7\' || substr(body, 9) AS BLOB)', "x''"):
        change(path, f"UPDATE messages SET body = {damage} WHERE key % (1 << 32) = {LAST}")
        database = open_database(path)
        states = await SqliteConversationStore(database).states("alice", ["g:team", "p:alice:bob"])
        assert [(state.head_seq, state.head_id, state.last_id) for state in states] == [
            (LAST, 2 * LAST - 1, 2 * LAST - 1),
            (LAST, 2 * LAST, 2 * LAST),
        ]
        await database.close()


async def test_a_repeat_of_a_damaged_message_is_a_repeat(path: Path) -> None:
    hurt_body("x'00'")(path)
    database = open_database(path)
    key = DedupKey("alice", "g:team", f"c-{HURT}")
    body = read_body((await SqliteMessageLog(database).find([key]))[key])
    assert says_the_same(body, Content(body.content))
    await database.close()


async def test_an_entry_that_points_to_the_message_of_others_is_damaged(path: Path, scribe: Scribe) -> None:
    database = open_database(path)
    await SqliteMessageLog(database).append([scribe.private("carol", "dave", "secret")])
    await database.close()
    change(
        path,
        "UPDATE entries SET message = (SELECT key FROM messages ORDER BY key DESC LIMIT 1) WHERE key = "
        "(SELECT id << 32 | 3 FROM names WHERE name = 'users/bob/inbox')",
    )
    database = open_database(path)
    entries = await SqliteMessageLog(database).read("users/bob/inbox", 0, 100, MUCH)
    assert [entry.offset for entry in entries if b"damaged" in entry.body] == [3]
    assert not [entry for entry in entries if b"secret" in entry.body or b"carol" in entry.body]
    await database.close()


async def test_an_amended_body_has_its_own_checksum(path: Path, scribe: Scribe) -> None:
    database = open_database(path)
    log = SqliteMessageLog(database)
    old = scribe.group("team", "old")
    await log.append([old])
    await log.append([scribe.edit(old, old.body.replace(b"old", b"new"))])
    assert [content(body) for n, body in of(await log.read("g:team", LAST, 10, MUCH)).items()][:1] == [
        '"new"'
    ]
    await database.close()


async def test_bodies_of_before_have_no_checksum_and_must_be_json(path: Path) -> None:
    change(path, "UPDATE messages SET checksum = NULL")
    assert all(body.withheld is None for body in (await read_all(path))["g:team"].values())
    hurt_body("CAST(substr(body, 1, 60) || x'ff' || substr(body, 62) AS BLOB)")(path)
    found = (await read_all(path))["g:team"]
    assert [n for n, body in found.items() if body.withheld] == [HURT]


async def test_a_damaged_event_is_a_gap(path: Path) -> None:
    change(path, "UPDATE events SET body = x'7b7d' WHERE key % (1 << 32) = 1")
    database = open_database(path)
    first, second = await SqliteMessageLog(database).read("users/bob/events", 0, 10, MUCH)
    assert first.body == b'{"event":"gap","topic":"users/bob/events","from":1,"to":1}'
    assert second.body == b'{"event":"x"}'
    await database.close()


def test_a_body_under_another_key_does_not_pass() -> None:
    assert len({checksum(key, b"{}") for key in (1 << 32 | 1, 1 << 32 | 2, 2 << 32 | 1)}) == 3


@pytest.mark.parametrize("seed", range(60))
async def test_random_damage_leads_to_lines_and_no_rubbish(path: Path, seed: int) -> None:
    before = await read_all(path)
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 4, 40))):
        data[chance.randrange(100, len(data))] = chance.randrange(256)
    path.write_bytes(data)
    try:
        database = open_database(path)
    except StoreError as error:
        one_line(error)
        return
    await check_what_is_left(database, before)
    await database.close()


async def check_what_is_left(database: Database, before: dict[str, dict[int, Body]]) -> None:
    log = SqliteMessageLog(database)
    known = {content(body) for bodies in before.values() for body in bodies.values()}
    for name in LOGS:
        try:
            entries = await log.read(name, 0, 100, MUCH)
            await log.read_back(name, 1 << 32, 100, MUCH)
            await SqliteConversationStore(database).states("alice", [name])
        except StoreError as error:
            one_line(error)
            continue
        for entry in entries:
            body = read_body(entry.body)
            assert body.withheld == "damaged" or content(body) in known
    try:
        await log.append([Scribe().group("other", "one more")])
    except (StoreError, DuplicateMessageError) as error:
        one_line(error)


def one_line(error: Exception) -> None:
    assert "\n" not in str(error)
