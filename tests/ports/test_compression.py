"""Bodies that SQLite keeps compressed: read as any others, in every way."""

import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.domain.errors import StoreError
from broker.domain.message import read_body
from broker.ports import DedupKey, StoreContext, Stores
from plugins.persistence.compression import Compression, unpack
from plugins.persistence.sqlite import SqlitePersistencePlugin
from tests.ports.conftest import Scribe

MUCH = 1 << 30
LONG = "lorem ipsum dolor sit amet " * 40
BODY = b'{"id":"1234567890123456789","conversation_id":"g:team","content":"%b"}' % LONG.encode()


@pytest.mark.parametrize(("algorithm", "level"), [("zstd", 3), ("zstd", 19), ("zlib", 6)])
@pytest.mark.parametrize("plain", [0, 27])
def test_what_is_packed_is_unpacked(algorithm: str, level: int, plain: int) -> None:
    compression = Compression(512, algorithm, level)
    packed, name = compression.pack(BODY, plain)
    assert name == algorithm
    assert len(packed) < len(BODY) / 3
    assert packed[:plain] == BODY[:plain]
    assert unpack(packed, name, plain) == BODY
    for damaged in (b"", packed[:-9], packed[:plain] + b"rubbish", packed[:20] + b"\xff" * 40):
        try:
            found = unpack(damaged, name, plain)
        except ValueError:
            continue
        assert found != BODY


def test_small_bodies_and_those_that_do_not_gain_stay_as_they_are() -> None:
    compression = Compression(512)
    noise = random.Random(1).randbytes(600)
    for body in (BODY[:511], noise):
        assert compression.pack(body) == (body, "")
        assert unpack(body, "") == body
    assert Compression(0).pack(BODY) == (BODY, "")


@pytest.mark.parametrize(("algorithm", "level"), [("lzma", 3), ("zstd", 0), ("zstd", 23), ("zlib", 10)])
def test_an_unknown_compression_is_refused(algorithm: str, level: int) -> None:
    with pytest.raises(StoreError, match="compression must be zstd"):
        Compression(512, algorithm, level)


@pytest.fixture(params=["zstd", "zlib"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    options = SqlitePersistencePlugin.Config(compress_from=512, compression=request.param)
    opened = await SqlitePersistencePlugin.open_stores(options, StoreContext(tmp_path))
    yield opened
    await opened.close()


def rows(tmp_path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(tmp_path / "parley.db")) as connection, connection:
        return connection.execute(sql).fetchall()


async def test_compressed_bodies_are_read_in_every_way(node: Stores, tmp_path: Path, scribe: Scribe) -> None:
    log = node.messages
    small, large = scribe.private("alice", "bob", "x"), scribe.private("alice", "bob", LONG, "c-1")
    await log.append([small, large])
    assert [row[0] for row in rows(tmp_path, "SELECT codec > 0 FROM messages ORDER BY key")] == [0, 1]
    (length,) = rows(tmp_path, "SELECT length(body) FROM messages WHERE codec > 0")[0]
    assert int(str(length)) < len(large.body) / 3
    for name in ("p:alice:bob", "users/alice/inbox", "users/bob/inbox"):
        assert [entry.body for entry in await log.read(name, 0, 9, MUCH)] == [small.body, large.body]
        assert [entry.body for entry in await log.read_back(name, 9, 1, MUCH)] == [large.body]
    key = DedupKey("alice", "p:alice:bob", "c-1")
    assert await log.find([key]) == {key: large.body}
    assert (await log.locate([large.id]))[large.id].body == large.body
    (state,) = await node.conversations.states("bob", ["p:alice:bob"])
    assert (state.head_id, state.last_id) == (large.id, large.id)


async def test_amendments_change_the_compression(node: Stores, tmp_path: Path, scribe: Scribe) -> None:
    log = node.messages
    message = scribe.group("team", LONG, mentions=["bob"])
    await log.append([message])
    edit = scribe.edit(message, message.body.replace(b"lorem", b"LOREM"))
    await log.append([edit])
    found = await log.read("g:team", 0, 9, MUCH)
    assert found[0].body == edit.draft.amends[0].body
    assert [entry.body for entry in await log.amendments("g:team", 1, 0, 9, MUCH)] == [edit.body]
    assert await node.conversations.mentions("bob", {"g:team": 0}) == {"g:team": 1}
    await log.append([scribe.edit(message, b'{"id":"1"}', kind="recall")])
    assert (await log.read("g:team", 0, 9, MUCH))[0].body == b'{"id":"1"}'
    assert await node.conversations.mentions("bob", {"g:team": 0}) == {}
    assert rows(tmp_path, "SELECT sum(codec) FROM messages") == [(0,)]


async def test_a_compressed_body_that_is_damaged(node: Stores, tmp_path: Path, scribe: Scribe) -> None:
    await node.messages.append([scribe.group("team", LONG) for _ in range(4)])
    assert node.upkeep is not None
    assert [each.findings async for each in node.upkeep.verify() if each.findings] == []
    rows(tmp_path, "UPDATE messages SET body = substr(body, 1, 60) WHERE n = 1")
    rows(tmp_path, "UPDATE messages SET body = CAST(replace(body, 'id', 'ID') AS BLOB) WHERE n = 2")
    rows(tmp_path, "UPDATE messages SET codec = 9 WHERE n = 3")
    bodies = [read_body(entry.body) for entry in await node.messages.read("g:team", 0, 9, MUCH)]
    assert [(body.seq, body.withheld) for body in bodies] == [
        (1, "damaged"),
        (2, "damaged"),
        (3, "damaged"),
        (4, None),
    ]
    findings = [each async for report in node.upkeep.verify() for each in report.findings]
    assert {each.where for each in findings if each.kind == "checksum"} == {f"g:team {n}" for n in (1, 2, 3)}


async def test_what_is_stored_is_read_whatever_the_options_are(
    node: Stores, tmp_path: Path, scribe: Scribe
) -> None:
    large = scribe.group("team", LONG)
    await node.messages.append([large])
    other = await SqlitePersistencePlugin.open_stores(
        SqlitePersistencePlugin.Config(), StoreContext(tmp_path)
    )
    try:
        assert [entry.body for entry in await other.messages.read("g:team", 0, 9, MUCH)] == [large.body]
        await other.messages.append([scribe.group("team", LONG)])
    finally:
        await other.close()
    assert rows(tmp_path, "SELECT codec > 0 FROM messages ORDER BY key") == [(1,), (0,)]
