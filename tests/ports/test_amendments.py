"""What every `MessageLog` does with messages by their ids, and with amendments (broker.ports)."""

from typing import TYPE_CHECKING

import pytest

from broker.domain.errors import DuplicateMessageError, StoreError
from broker.domain.message import Entry
from broker.ports import DedupKey, Located

if TYPE_CHECKING:
    from tests.ports.conftest import OpenedStores, Scribe


async def read_all(stores: "OpenedStores", log: str) -> list[Entry]:
    return await stores.log.read(log, 0, 10_000, 1 << 30)


# --- by id ----------------------------------------------------------------------------------


async def test_messages_are_located_by_their_ids(stores: "OpenedStores", scribe: "Scribe") -> None:
    batch = [
        scribe.group("team", "a"),
        scribe.private("alice", "bob", "b"),
        scribe.group("team", "c"),
        scribe.private("bob", "alice", "d"),
        scribe.private("bob", "bob", "e"),
    ]
    await stores.log.append(batch)
    wanted = {m.id: Located(m.draft.conversation_id, m.seq, m.body) for m in batch}
    for _ in range(2):
        assert await stores.log.locate([m.id for m in reversed(batch)]) == wanted
        assert await stores.log.locate([batch[3].id] * 2) == {batch[3].id: wanted[batch[3].id]}
        await stores.reopen()


@pytest.mark.parametrize("unknown", [0, -1, 99, -(1 << 63), (1 << 63) - 1, 1 << 63, 1 << 100])
async def test_ids_that_are_unknown_are_left_out(
    stores: "OpenedStores", scribe: "Scribe", unknown: int
) -> None:
    assert await stores.log.locate([unknown]) == {}
    known = scribe.group("team")
    await stores.log.append([known])
    assert list(await stores.log.locate([unknown, known.id])) == [known.id]
    assert await stores.log.locate([]) == {}


async def test_what_was_not_committed_is_not_located(stores: "OpenedStores", scribe: "Scribe") -> None:
    await stores.log.append([scribe.group("team", "a", "c-1")])
    doomed = [scribe.group("crew", "b"), scribe.group("team", "c", "c-1")]
    with pytest.raises(DuplicateMessageError):
        await stores.log.append(doomed)
    assert await stores.log.locate([m.id for m in doomed]) == {}


# --- amendments -----------------------------------------------------------------------------


async def test_an_amendment_replaces_the_body_wherever_it_is_read(
    stores: "OpenedStores", scribe: "Scribe"
) -> None:
    first, target = scribe.private("alice", "bob", "a"), scribe.private("alice", "bob", "b", "c-1", qos=2)
    await stores.log.append([first, target])
    edit = scribe.edit(target, b'{"new":"x"}')
    await stores.log.append([edit, scribe.private("bob", "alice", "c")])
    for _ in range(2):
        for log in ("p:alice:bob", "users/bob/inbox", "users/alice/inbox"):
            entries = await read_all(stores, log)
            assert [entry.offset for entry in entries] == [1, 2, 3, 4]
            assert [entry.body for entry in entries[:3]] == [first.body, b'{"new":"x"}', edit.body]
            assert [entry.qos for entry in entries] == [1, 2, 1, 1]
        assert await stores.log.locate([target.id]) == {target.id: Located("p:alice:bob", 2, b'{"new":"x"}')}
        key = DedupKey("alice", "p:alice:bob", "c-1")
        assert await stores.log.find([key]) == {key: b'{"new":"x"}'}
        await stores.reopen()


async def test_amendments_of_one_batch_take_effect_in_order(stores: "OpenedStores", scribe: "Scribe") -> None:
    target = scribe.group("team", "a")
    edits = [scribe.edit(target, b'{"n":1}'), scribe.edit(target, b'{"n":%d}' % (1 << 60))]
    await stores.log.append([target, *edits])
    entries = await read_all(stores, "g:team")
    assert [entry.body for entry in entries] == [b'{"n":%d}' % (1 << 60), edits[0].body, edits[1].body]


@pytest.mark.parametrize("seq", [0, 4, 5, -1, (1 << 32) + 1, -(1 << 32) + 1, 1 << 70])
async def test_an_amendment_of_no_earlier_message_is_refused(
    stores: "OpenedStores", scribe: "Scribe", seq: int
) -> None:
    batch = [scribe.group(group) for group in ("team",) * 3 + ("other",) * 5]
    await stores.log.append(batch)
    with pytest.raises(StoreError):
        await stores.log.append([scribe.private("eve", "bob"), scribe.edit(batch[0], b"{}", seq)])
    assert [entry.body for g in ("team", "other") for entry in await read_all(stores, f"g:{g}")] == [
        m.body for m in batch
    ]
    assert await stores.log.heads(["p:bob:eve", "users/bob/inbox"]) == {"p:bob:eve": 0, "users/bob/inbox": 0}


async def test_what_has_amended_a_message(stores: "OpenedStores", scribe: "Scribe") -> None:
    target, other = scribe.private("alice", "bob", "a"), scribe.private("alice", "bob", "b")
    edits = [scribe.edit(message, b'{"n":1}') for message in (target, other, target, target)]
    await stores.log.append([target, other, *edits, scribe.group("team")])

    async def found(seq: int, after: int = 0, limit: int = 10, max_bytes: int = 1 << 30) -> list[Entry]:
        return await stores.log.amendments("p:alice:bob", seq, after, limit, max_bytes)

    mine = [Entry(edit.seq, edit.body) for edit in (edits[0], edits[2], edits[3])]
    assert await found(target.seq) == mine
    assert await found(target.seq, after=mine[0].offset, limit=1) == mine[1:2]
    assert await found(target.seq, max_bytes=1) == mine[:1]
    assert await found(edits[0].seq) == await stores.log.amendments("g:none", 1, 0, 10, 100) == []
