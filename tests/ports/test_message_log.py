"""What every `MessageLog` does (broker.ports)."""

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Entry, Stamped, read_body
from broker.domain.publication import Properties
from broker.ports import DedupKey

if TYPE_CHECKING:
    from tests.ports.conftest import OpenedStores, Scribe

MUCH = 1 << 30


def texts(entries: list[Entry]) -> list[str]:
    return [bytes(read_body(entry.body).content).decode().strip('"') for entry in entries]


def offsets(entries: list[Entry]) -> list[int]:
    return [entry.offset for entry in entries]


async def read_all(stores: "OpenedStores", log: str) -> list[Entry]:
    return await stores.log.read(log, 0, 10_000, MUCH)


async def fill(stores: "OpenedStores", scribe: "Scribe", count: int, group: str = "team") -> list[Stamped]:
    batch = [scribe.group(group, f"m{i}") for i in range(1, count + 1)]
    await stores.log.append(batch)
    return batch


# --- reading --------------------------------------------------------------------------------


async def test_an_empty_store(stores: "OpenedStores") -> None:
    for log in ("g:team", "users/bob/inbox", "p:a:b"):
        assert await stores.log.read(log, 0, 10, MUCH) == []
        assert await stores.log.read_back(log, 10, 10, MUCH) == []
    assert await stores.log.heads(["g:team", "users/bob/inbox"]) == {"g:team": 0, "users/bob/inbox": 0}
    assert await stores.log.heads([]) == {}
    assert await stores.log.find([DedupKey("alice", "g:team", "c-1")]) == {}
    await stores.log.append([])


async def test_the_last_id(stores: "OpenedStores", scribe: "Scribe") -> None:
    assert await stores.log.last_id() == 0
    (*_, last) = await fill(stores, scribe, 5)
    await stores.reopen()
    assert await stores.log.last_id() == last.id


async def test_a_group_message_is_read_as_it_was_written(stores: "OpenedStores", scribe: "Scribe") -> None:
    one, two = scribe.group("team", "grüße\0 漢字"), scribe.group("team", "b", qos=2)
    await stores.log.append([one, two])
    assert await read_all(stores, "g:team") == [Entry(1, one.body, 1), Entry(2, two.body, 2)]


PROPERTIES = Properties(
    payload_format=1,
    content_type="text/plain",
    response_topic="users/alice/replies",
    correlation_data=b"\x00\xff",
    user=(("a", "1"), ("a", "2"), ("é", "")),
    expires_at=1_764_000_000_000,
    trace="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)


async def test_what_a_publication_carries_is_read_with_it(stores: "OpenedStores", scribe: "Scribe") -> None:
    message = scribe.private("alice", "bob", "x")
    message = replace(message, draft=replace(message.draft, properties=PROPERTIES))
    await stores.log.append([message, scribe.private("alice", "bob", "y")])
    for log in ("users/bob/inbox", "users/alice/inbox", "p:alice:bob"):
        assert [entry.properties for entry in await read_all(stores, log)] == [PROPERTIES, None]
    back = await stores.log.read_back("p:alice:bob", 2, 10, MUCH)
    assert [entry.properties for entry in back] == [PROPERTIES]


async def test_a_private_message_stands_in_three_logs(stores: "OpenedStores", scribe: "Scribe") -> None:
    first = scribe.private("carol", "bob", "x", qos=0)
    second = scribe.private("alice", "bob", "y")
    await stores.log.append([first, second])
    assert await read_all(stores, "users/bob/inbox") == [Entry(1, first.body, 0), Entry(2, second.body, 1)]
    assert await read_all(stores, "users/alice/inbox") == [Entry(1, second.body, 1)]
    assert await read_all(stores, "users/carol/inbox") == [Entry(1, first.body, 0)]
    assert await read_all(stores, "p:alice:bob") == [Entry(1, second.body, 1)]
    assert await read_all(stores, "p:bob:carol") == [Entry(1, first.body, 0)]


async def test_a_message_to_oneself_stands_in_one_inbox(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.private("bob", "bob"), scribe.private("bob", "bob")])
    assert offsets(await read_all(stores, "users/bob/inbox")) == [1, 2]
    assert offsets(await read_all(stores, "p:bob:bob")) == [1, 2]


async def test_logs_keep_apart_however_they_grow(stores: "OpenedStores", scribe: "Scribe") -> None:
    for i in range(60):
        batch = [scribe.group(f"g{i % 3}", f"{i}"), scribe.private("alice", f"u{i % 4}", f"{i}")]
        await stores.log.append(batch)
    for g in range(3):
        entries = await read_all(stores, f"g:g{g}")
        assert offsets(entries) == list(range(1, 21))
        assert texts(entries) == [str(i) for i in range(60) if i % 3 == g]
    for u in range(4):
        assert texts(await read_all(stores, f"users/u{u}/inbox")) == [str(i) for i in range(60) if i % 4 == u]
    assert offsets(await read_all(stores, "users/alice/inbox")) == list(range(1, 61))


@pytest.mark.parametrize(
    ("after", "limit", "wanted"),
    [
        (0, 3, [1, 2, 3]),
        (4, 3, [5, 6, 7]),
        (8, 3, [9, 10]),
        (10, 3, []),
        (11, 3, []),
        (1 << 40, 3, []),
        (9, 1, [10]),
        (0, 100, list(range(1, 11))),
        (-1, 2, [1, 2]),
    ],
)
async def test_entries_after_an_offset(
    stores: "OpenedStores", scribe: "Scribe", after: int, limit: int, wanted: list[int]
) -> None:
    await fill(stores, scribe, 10)
    assert offsets(await stores.log.read("g:team", after, limit, MUCH)) == wanted


@pytest.mark.parametrize(
    ("before", "limit", "wanted"),
    [
        (11, 3, [8, 9, 10]),
        (1 << 40, 3, [8, 9, 10]),
        (8, 3, [5, 6, 7]),
        (3, 5, [1, 2]),
        (2, 1, [1]),
        (1, 3, []),
        (0, 3, []),
        (-5, 3, []),
    ],
)
async def test_entries_before_an_offset(
    stores: "OpenedStores", scribe: "Scribe", before: int, limit: int, wanted: list[int]
) -> None:
    for _ in range(10):
        await stores.log.append([scribe.private("alice", "bob")])
    for log in ("users/bob/inbox", "p:alice:bob"):
        assert offsets(await stores.log.read_back(log, before, limit, MUCH)) == wanted


@pytest.mark.parametrize("after", [-1, -(1 << 32), -(1 << 33), -(1 << 60)])
async def test_a_cursor_below_zero_reads_no_other_log(
    stores: "OpenedStores", scribe: "Scribe", after: int
) -> None:
    """Clients choose cursors, so any value may arrive."""
    await fill(stores, scribe, 3, "secret")
    await fill(stores, scribe, 2, "team")
    await stores.log.append(
        [scribe.private("alice", "bob", "secret"), scribe.private("carol", "dave", "mine")]
    )
    assert texts(await stores.log.read("g:team", after, 10, MUCH)) == ["m1", "m2"]
    assert texts(await stores.log.read("users/dave/inbox", after, 10, MUCH)) == ["mine"]


async def test_a_log_is_read_in_pieces_without_gaps(stores: "OpenedStores", scribe: "Scribe") -> None:
    await fill(stores, scribe, 25)
    for limit in (1, 7, 25, 26):
        position, seen = 0, []
        while entries := await stores.log.read("g:team", position, limit, MUCH):
            seen += offsets(entries)
            position = entries[-1].offset
        assert seen == list(range(1, 26))


async def test_about_so_many_bytes(stores: "OpenedStores", scribe: "Scribe") -> None:
    batch = [scribe.group("team", "x" * 1000) for _ in range(10)]
    await stores.log.append(batch)
    size = len(batch[0].body)
    for max_bytes, wanted in ((0, 1), (1, 1), (size - 1, 1), (size, 1), (3 * size, 3), (100 * size, 10)):
        assert offsets(await stores.log.read("g:team", 0, 100, max_bytes)) == list(range(1, wanted + 1))
    assert offsets(await stores.log.read("g:team", 9, 100, 1)) == [10]
    assert await stores.log.read("g:team", 10, 100, 1) == []


async def test_heads(stores: "OpenedStores", scribe: "Scribe") -> None:
    await fill(stores, scribe, 3, "one")
    await fill(stores, scribe, 5, "two")
    await stores.log.append([scribe.private("alice", "bob"), scribe.private("carol", "bob")])
    asked = [
        "g:one",
        "g:two",
        "g:three",
        "users/bob/inbox",
        "users/carol/inbox",
        "p:alice:bob",
        "users/x/inbox",
    ]
    assert await stores.log.heads(asked) == dict(zip(asked, [3, 5, 0, 2, 1, 1, 0], strict=True))


# --- once, for ever -------------------------------------------------------------------------


async def test_find(stores: "OpenedStores", scribe: "Scribe") -> None:
    one, two = scribe.group("team", "a", "c-1"), scribe.private("alice", "bob", "b", "c-1")
    await stores.log.append([one, two, scribe.group("team", "no id")])
    known = {DedupKey("alice", "g:team", "c-1"): one.body, DedupKey("alice", "p:alice:bob", "c-1"): two.body}
    unknown = [
        DedupKey("bob", "g:team", "c-1"),
        DedupKey("alice", "g:team", "c-2"),
        DedupKey("alice", "g:team", "C-1"),
        DedupKey("alice", "g:crew", "c-1"),
        DedupKey("bob", "p:alice:bob", "c-1"),
        DedupKey("nobody", "p:x:y", "c-1"),
    ]
    assert await stores.log.find([*known, *unknown]) == known
    assert await stores.log.find([]) == {}


async def test_a_key_that_is_stored_is_refused(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.group("team", "a", "c-1")])
    with pytest.raises(DuplicateMessageError):
        await stores.log.append([scribe.group("team", "b", "c-1")])
    assert texts(await read_all(stores, "g:team")) == ["a"]


async def test_a_key_twice_in_a_batch_is_refused(stores: "OpenedStores", scribe: "Scribe") -> None:
    batch = [scribe.private("alice", "bob", "a", "c-1"), scribe.private("alice", "bob", "b", "c-1")]
    with pytest.raises(DuplicateMessageError):
        await stores.log.append(batch)
    assert await stores.log.heads(["p:alice:bob", "users/bob/inbox"]) == {
        "p:alice:bob": 0,
        "users/bob/inbox": 0,
    }


async def test_no_id_is_no_key(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.group("team"), scribe.group("team")])
    await stores.log.append([scribe.group("team")])
    assert await stores.log.heads(["g:team"]) == {"g:team": 3}


async def test_the_same_id_elsewhere_is_another_key(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append(
        [
            scribe.group("team", "a", "c-1"),
            scribe.group("team", "b", "c-1", sender="bob"),
            scribe.group("crew", "c", "c-1"),
            scribe.private("alice", "bob", "d", "c-1"),
            scribe.private("bob", "alice", "e", "c-1"),
        ]
    )
    assert texts(await read_all(stores, "p:alice:bob")) == ["d", "e"]


async def test_a_place_that_is_taken_is_refused(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.private("alice", "bob", "a")])
    for log in ("p:alice:bob", "users/bob/inbox", "users/alice/inbox"):
        stale = dict(scribe.heads)
        scribe.heads[log] -= 1
        with pytest.raises(DuplicateMessageError):
            await stores.log.append([scribe.private("alice", "bob", "b")])
        scribe.heads = stale
    await stores.log.append([scribe.private("alice", "bob", "c")])
    assert texts(await read_all(stores, "users/bob/inbox")) == ["a", "c"]
    assert texts(await read_all(stores, "p:alice:bob")) == ["a", "c"]


async def test_a_duplicate_writes_nothing_of_its_batch(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.group("team", "a", "c-1")])
    heads = dict(scribe.heads)
    doomed = [
        scribe.group("new", "b", "c-2"),
        scribe.private("carol", "dave", "c", "c-3"),
        scribe.group("team", "d", "c-1"),
        scribe.group("newer", "e"),
    ]
    with pytest.raises(DuplicateMessageError):
        await stores.log.append(doomed)
    logs = ["g:new", "g:newer", "users/carol/inbox", "users/dave/inbox", "p:carol:dave"]
    assert await stores.log.heads(logs) == dict.fromkeys(logs, 0)
    assert (
        await stores.log.find([DedupKey("alice", "g:new", "c-2"), DedupKey("carol", "p:carol:dave", "c-3")])
        == {}
    )
    # Its names are as good as new: the same messages without the duplicate, and others before.
    scribe.heads = heads
    await stores.log.append([scribe.group("between", "x"), scribe.private("eve", "mallory", "y")])
    await stores.log.append([scribe.group("new", "b", "c-2"), scribe.private("carol", "dave", "c", "c-3")])
    await stores.log.append([scribe.group("newer", "e")])
    for _ in range(2):
        assert texts(await read_all(stores, "g:new")) == ["b"]
        assert texts(await read_all(stores, "g:newer")) == ["e"]
        assert texts(await read_all(stores, "g:between")) == ["x"]
        assert texts(await read_all(stores, "users/dave/inbox")) == ["c"]
        assert texts(await read_all(stores, "users/mallory/inbox")) == ["y"]
        await stores.reopen()


async def test_the_same_message_with_and_without_a_key(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append(
        [scribe.group("team", "a"), scribe.group("team", "b", "c-1"), scribe.group("team")]
    )
    with pytest.raises(DuplicateMessageError):
        await stores.log.append([scribe.group("team", "c"), scribe.group("team", "d", "c-1")])
    assert await stores.log.heads(["g:team"]) == {"g:team": 3}
    assert await stores.log.find([DedupKey("alice", "g:team", "c-2")]) == {}


# --- for ever -------------------------------------------------------------------------------


async def test_a_restart_keeps_everything(stores: "OpenedStores", scribe: "Scribe") -> None:
    one, two = scribe.group("team", "a", "c-1", qos=2), scribe.private("alice", "bob", "b", "c-2")
    await stores.log.append([one, two])
    await stores.reopen()
    assert await read_all(stores, "g:team") == [Entry(1, one.body, 2)]
    assert await read_all(stores, "users/bob/inbox") == [Entry(1, two.body, 1)]
    assert await stores.log.heads(["g:team", "users/alice/inbox"]) == {"g:team": 1, "users/alice/inbox": 1}
    key = DedupKey("alice", "p:alice:bob", "c-2")
    assert await stores.log.find([key]) == {key: two.body}
    with pytest.raises(DuplicateMessageError):
        await stores.log.append([scribe.group("team", "a", "c-1")])
    scribe.heads["g:team"] -= 1
    await stores.log.append([scribe.group("team", "c", "c-3")])
    assert texts(await read_all(stores, "g:team")) == ["a", "c"]


async def test_what_is_appended_is_read_at_once(stores: "OpenedStores", scribe: "Scribe") -> None:
    for i in range(1, 20):
        await stores.log.append([scribe.group("team", f"{i}")])
        assert await stores.log.heads(["g:team"]) == {"g:team": i}
        assert texts(await stores.log.read("g:team", i - 1, 10, MUCH)) == [str(i)]


async def test_a_large_batch_and_a_large_message(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.private("alice", f"u{i}", f"{i}") for i in range(1000)])
    assert await stores.log.heads(["users/alice/inbox"]) == {"users/alice/inbox": 1000}
    large = scribe.group("team", "x" * 1_000_000)
    await stores.log.append([large])
    assert await read_all(stores, "g:team") == [Entry(1, large.body, 1)]


@pytest.mark.parametrize("call", ["append", "heads", "read", "read_back", "locate", "find", "last_id"])
async def test_a_store_that_is_closed_says_so(stores: "OpenedStores", scribe: "Scribe", call: str) -> None:
    await stores.close()
    key = DedupKey("alice", "g:team", "c-1")
    arguments = {
        "append": ([scribe.group("team")],),
        "heads": (["g:team"],),
        "read": ("g:team", 0, 1, 1),
        "read_back": ("g:team", 1, 1, MUCH),
        "locate": ([1],),
        "find": ([key],),
        "last_id": (),
    }
    try:
        with pytest.raises(StoreError):
            await getattr(stores.log, call)(*arguments[call])
    finally:
        await stores.open()
