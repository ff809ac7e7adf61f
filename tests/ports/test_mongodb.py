"""The MongoDB store itself: its schema, damage, compression, and several nodes at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Entry, read_body
from broker.ports import (
    DedupKey,
    Enqueued,
    KeptEvent,
    MessageLog,
    QueuedMessage,
    Saved,
    Seen,
    SessionKey,
    SessionState,
    Stores,
)
from plugins.persistence.mongodb import schema
from plugins.persistence.mongodb.places import field_of, key, log_of
from tests.ports.conftest import Scribe
from tests.ports.mongodb_stores import MUCH, client, database_of_its_own, fresh, opened
from tests.servers import mongodb

EVENTS = "users/bob/events"
PHONE = SessionKey("bob", "phone|é.$\0")


@pytest.fixture
async def options() -> AsyncIterator[dict[str, Any]]:
    """Options for an empty database."""
    async with mongodb.emptied_database() as options:
        yield {"uri": options["uri"], "database": options["database"]}


@pytest.fixture
async def node(options: dict[str, Any], tmp_path: Path) -> AsyncIterator[Stores]:
    async with opened(tmp_path, **options) as opened_node:
        yield opened_node


async def read_all(log: MessageLog, name: str) -> list[Entry]:
    return await log.read(name, 0, 10_000, MUCH)


async def texts(log: MessageLog, name: str) -> list[str]:
    return [bytes(read_body(entry.body).content).decode().strip('"') for entry in await read_all(log, name)]


# --- keys -----------------------------------------------------------------------------------


def test_no_two_things_have_one_key() -> None:
    parts = ["", "a", "|", "a|", "|a", "%7C", "%", "a|b"]
    assert (
        len({key(one, other, last) for one in parts for other in parts for last in parts}) == len(parts) ** 3
    )


@pytest.mark.parametrize("log", ["users/a.b/inbox", "g:%2E", "g:a%2Eb", "p:$a:b", "%25", "a\0b", ""])
def test_a_log_as_a_field_is_that_log_again(log: str) -> None:
    assert log_of(field_of(log)) == log
    assert not set(field_of(log)) & set(".$\0")


async def test_cursors_of_logs_with_dots(node: Stores) -> None:
    state = SessionState({}, {"users/a.b/inbox": 1, "users/a%2Eb/inbox": 2}, [], [], [])
    await node.states.apply([Saved(PHONE, state, 1)])
    assert await node.states.load(PHONE) == state


async def test_nothing_is_kept_in_the_data_directory(node: Stores, tmp_path: Path, scribe: Scribe) -> None:
    await node.messages.append([scribe.group("team")])
    assert list(tmp_path.iterdir()) == []


# --- the schema -----------------------------------------------------------------------------


async def test_two_nodes_that_start_at_once_migrate_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    async def step(database: object) -> None:
        taken.append(1)
        await asyncio.sleep(0)

    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, step))
    async with database_of_its_own() as name:

        async def start() -> None:
            async with opened(tmp_path, mongodb.server_url(), name) as stores:
                assert await stores.messages.heads(["g:a"]) == {"g:a": 0}

        await asyncio.gather(start(), start(), start())
        with client() as connected:
            assert connected[name].meta.find_one({"_id": "schema"})["version"] == 2
            assert connected[name].meta.find_one({"_id": "lock"}) is None
    assert taken == [1]


async def test_a_node_goes_on_where_another_has_died(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_DEAD_SECONDS", 0.3)
    async with database_of_its_own() as name:
        with client() as connected:
            connected[name].meta.insert_one({"_id": "lock", "owner": "gone", "beat": 3})
        async with opened(tmp_path, mongodb.server_url(), name) as stores:
            assert await stores.messages.last_id() == 0


async def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    async with database_of_its_own() as name:
        with client() as connected:
            connected[name].meta.insert_one({"_id": "schema", "version": 99})
            with pytest.raises(StoreError, match=r"schema version 99, newer than version 1 of this program"):
                async with opened(tmp_path, mongodb.server_url(), name):
                    pass
            assert connected[name].list_collection_names() == ["meta"]


async def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    for options in ({"compression": "lzma"}, {"compression_level": 99}, {"compression_level": 0}):
        with pytest.raises(StoreError, match="compression must be zstd"):
            async with opened(tmp_path, mongodb.server_url(), fresh(), **options):
                pass


# --- bodies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options_of_bodies", [("zstd", 3), ("zlib", 6)])
async def test_large_bodies_are_compressed(
    options: dict[str, Any], tmp_path: Path, scribe: Scribe, options_of_bodies: tuple[str, int]
) -> None:
    algorithm, level = options_of_bodies
    small, large = scribe.group("team", "x"), scribe.group("team", "lorem ipsum " * 100)
    edit = scribe.edit(large, small.body)
    async with opened(tmp_path, **options, compression=algorithm, compression_level=level) as stores:
        await stores.messages.append([small, large])
        with client() as connected:
            first, second = connected[options["database"]].messages.find().sort("_id")
        assert first["body"] == small.body
        assert second["codec"] == algorithm
        assert len(second["body"]) < len(large.body) / 2
    # Whatever the options are now.
    async with opened(tmp_path, **options, compress_from=0) as stores:
        assert [entry.body for entry in await read_all(stores.messages, "g:team")] == [small.body, large.body]
        await stores.messages.append([edit])
        entries = await read_all(stores.messages, "g:team")
        assert [entry.body for entry in entries] == [small.body, small.body, edit.body]


DAMAGE = {
    "another body": {"$set": {"body": b"rubbish"}},
    "no body": {"$unset": {"body": 1}},
    "a body of another type": {"$set": {"body": 7}},
    "another checksum": {"$set": {"checksum": 1}},
    "an unknown codec": {"$set": {"codec": "lzma"}},
    "a codec that it is not": {"$set": {"codec": "zstd"}},
    "a QoS that is none": {"$set": {"qos": 9}},
    "no document": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_is_damaged_keeps_its_place(
    node: Stores, options: dict[str, Any], scribe: Scribe, damage: str
) -> None:
    batch = [scribe.private("alice", "bob", f"{i}", f"c-{i}") for i in range(1, 4)]
    await node.messages.append(batch)
    with client() as connected:
        messages, hurt = connected[options["database"]].messages, {"_id": "p:alice:bob/0000000002"}
        change = DAMAGE[damage]
        messages.delete_one(hurt) if change is None else messages.update_one(hurt, change)
    for name in ("p:alice:bob", "users/bob/inbox"):
        entries = await read_all(node.messages, name)
        assert [entry.offset for entry in entries] == [1, 2, 3]
        assert [entries[0].body, entries[2].body] == [batch[0].body, batch[2].body]
        body = read_body(entries[1].body)
        assert (body.seq, body.withheld, body.conversation_id) == (2, "damaged", "p:alice:bob")
    located = (await node.messages.locate([batch[1].id]))[batch[1].id]
    assert (located.seq, read_body(located.body).id) == (2, str(batch[1].id))
    if damage != "a QoS that is none":
        key_of_it = DedupKey("alice", "p:alice:bob", "c-2")
        found = await node.messages.find([key_of_it])
        assert read_body(found[key_of_it]).withheld == "damaged"


async def test_an_entry_that_points_to_a_message_of_others(
    node: Stores, options: dict[str, Any], scribe: Scribe
) -> None:
    await node.messages.append([scribe.private("alice", "bob"), scribe.private("carol", "dave", "secret")])
    with client() as connected:
        entries = connected[options["database"]].entries
        where = {"_id": "users/bob/inbox/0000000001"}
        entries.update_one(where, {"$set": {"message": "p:carol:dave/0000000001"}})
        (entry,) = await read_all(node.messages, "users/bob/inbox")
        assert read_body(entry.body).withheld == "damaged"
        assert b"secret" not in entry.body
        entries.delete_one(where)
        (entry,) = await read_all(node.messages, "users/bob/inbox")
        assert read_body(entry.body).withheld == "damaged"


# --- events ---------------------------------------------------------------------------------


async def test_the_last_events_remain(node: Stores, options: dict[str, Any]) -> None:
    log = node.messages
    for first in range(1, 10, 3):
        await log.append_events([KeptEvent(EVENTS, n, b'{"n":%d}' % n) for n in range(first, first + 3)], 4)
    assert [entry.offset for entry in await read_all(log, EVENTS)] == [6, 7, 8, 9]
    assert [entry.offset for entry in await log.read_back(EVENTS, 9, 2, MUCH)] == [7, 8]
    assert await log.heads([EVENTS]) == {EVENTS: 9}
    with pytest.raises(DuplicateMessageError):
        await log.append_events([KeptEvent(EVENTS, 9, b"{}")], 4)
    with client() as connected:
        events = connected[options["database"]].events
        assert events.count_documents({}) == 4
        events.delete_one({"_id": f"{EVENTS}/0000000007"})
    lost = (await read_all(log, EVENTS))[1]
    assert (lost.offset, b'"gap"' in lost.body) == (7, True)


# --- several nodes --------------------------------------------------------------------------


async def test_of_two_nodes_at_one_head_one_wins(options: dict[str, Any], tmp_path: Path) -> None:
    """No gap, nothing twice: each takes its turn or learns that it has lost."""

    async def write(stores: Stores, sender: str, base: int) -> int:
        lost = 0
        for number in range(40):
            while True:
                scribe = Scribe()
                scribe.heads = await stores.messages.heads(
                    ["p:alice:bob", "users/alice/inbox", "users/bob/inbox"]
                )
                other = "bob" if sender == "alice" else "alice"
                scribe._ids = base + number
                try:
                    await stores.messages.append([scribe.private(sender, other, f"{sender} {number}")])
                except DuplicateMessageError:
                    lost += 1
                    continue
                break
        return lost

    async with opened(tmp_path, **options) as one, opened(tmp_path, **options) as other:
        async with asyncio.timeout(60):
            await asyncio.gather(write(one, "alice", 1000), write(other, "bob", 2000))
        for name in ("p:alice:bob", "users/alice/inbox", "users/bob/inbox"):
            entries = await read_all(one.messages, name)
            assert [entry.offset for entry in entries] == list(range(1, 81))
            found = await texts(one.messages, name)
            assert [text for text in found if text[0] == "a"] == [f"alice {n}" for n in range(40)]
            assert [text for text in found if text[0] == "b"] == [f"bob {n}" for n in range(40)]


async def test_two_nodes_change_the_same_documents(options: dict[str, Any], tmp_path: Path) -> None:
    async with opened(tmp_path, **options) as one, opened(tmp_path, **options) as other:
        await one.states.apply([Saved(PHONE, SessionState({}, {}, [], [], []), 1)])

        async def change(stores: Stores, first: int) -> None:
            for number in range(first, 60, 2):
                message = QueuedMessage("open/1", f"{number}".encode(), 1)
                seen = Seen("bob", "g:team", number, read=number)
                await stores.states.apply([Enqueued(PHONE, message, 1000), seen])

        async with asyncio.timeout(60):
            await asyncio.gather(change(one, 0), change(other, 1))
        loaded = await one.states.load(PHONE)
        assert loaded is not None
        found = [int(message.payload) for message in loaded.queue]
        assert sorted(found) == list(range(60))
        assert [each for each in found if each % 2] == list(range(1, 60, 2))
        (state,) = await other.conversations.states("bob", ["g:team"])
        assert state.read_seq == 59
