"""`Upkeep.verify` of the MongoDB store: nothing is found in a sound store, and each kind of damage is."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.domain.errors import StoreError
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
    Stores,
    Verified,
)
from tests.ports.conftest import Scribe
from tests.ports.mongodb_stores import client, opened
from tests.servers import mongodb
from tests.subscribed import subscribed

EVENTS = "users/bob/events"
PHONE = SessionKey("bob", "phone")


@pytest.fixture
async def options() -> AsyncIterator[dict[str, Any]]:
    async with mongodb.emptied_database() as options:
        yield {"uri": options["uri"], "database": options["database"]}


@pytest.fixture
async def node(options: dict[str, Any], tmp_path: Path, scribe: Scribe) -> AsyncIterator[Stores]:
    """A store with something of everything."""
    async with opened(tmp_path, **options) as node:
        log = node.messages
        first = scribe.private("alice", "bob", "first", "c-1")
        await log.append([first, scribe.private("bob", "alice"), scribe.group("team", client_msg_id="c-1")])
        edited = first.body.replace(b'"first"', b'"edited"')
        await log.append([scribe.edit(first, edited), scribe.private("alice", "alice")])
        await log.append([scribe.group("team", f"text {number}" * 80) for number in range(20)])
        await log.append([scribe.group("team", mentions="all"), scribe.group("team", mentions=["bob"])])
        await log.append([scribe.private(f"u{number}", "bob") for number in range(10)])
        await log.append_events([KeptEvent(EVENTS, number, b"{}") for number in range(1, 9)], 5)
        state = SessionState(
            subscribed({"users/bob/#": 1}),
            {"users/bob/inbox": 3, EVENTS: 8, "g:none": 0},
            [Redelivery(1, "users/bob/inbox", 3, 1)],
            [7],
            [QueuedMessage("open/1", b"x", 1)],
        )
        seen = Seen("bob", "p:alice:bob", 0, read=2, delivered=3)
        await node.states.apply([Saved(PHONE, state, 0), seen, Retained("open/1", b"x", 1)])
        yield node


async def reports(node: Stores) -> AsyncIterator[Verified]:
    assert node.upkeep is not None
    async for report in node.upkeep.verify():
        yield report


async def verify(node: Stores) -> list[Finding]:
    return [finding async for report in reports(node) for finding in report.findings]


async def test_a_sound_store(node: Stores, scribe: Scribe) -> None:
    await node.messages.append([scribe.group("team") for _ in range(250)])
    await node.messages.append([scribe.private(f"u{number}", "bob") for number in range(150)])
    found = [report async for report in reports(node)]
    assert [finding for report in found for finding in report.findings] == []
    assert all(0 <= report.done <= report.total for report in found)
    assert sum(report.checked for report in found) > 1000
    assert max(report.checked for report in found) <= 300  # bounded


async def test_writing_meanwhile_is_no_damage(node: Stores, scribe: Scribe) -> None:
    findings: list[Finding] = []
    number = 0
    async for report in reports(node):
        findings += report.findings
        number += 1
        pair = [scribe.private("alice", "bob"), scribe.private("zoe", "bob")]
        await node.messages.append([*pair, scribe.group("team")])
        await node.messages.append_events([KeptEvent(EVENTS, 8 + number, b"{}")], 2)
        queue = [QueuedMessage("open/1", b"y", 1)]
        state = SessionState(subscribed({}), {"users/bob/inbox": 13 + 2 * number}, [], [], queue)
        seen = Seen("bob", "p:alice:bob", 0, read=3 + number)
        await node.states.apply([Saved(PHONE, state, 0), seen])
    assert findings == []


TEAM, PRIVATE, INBOX = "g:team/0000000010", "p:alice:bob/0000000001", "users/bob/inbox/0000000002"
DELETE = None


@pytest.mark.parametrize(
    ("collection", "which", "change", "kind", "where", "words"),
    [
        ("messages", TEAM, DELETE, "gap", "g:team", "10 missing"),
        ("messages", TEAM, DELETE, "dangling", "id ", "no such message"),
        ("messages", PRIVATE, DELETE, "dangling", "users/bob/inbox 1", "no p:alice:bob 1"),
        ("messages", PRIVATE, DELETE, "dangling", "amendment", "no p:alice:bob"),
        ("messages", "g:team/0000000022", DELETE, "dangling", "mention of all", "no such"),
        ("messages", TEAM, {"body": b"{}"}, "checksum", "g:team 10", "not the one"),
        ("messages", TEAM, {"n": 7}, "damaged", "g:team 10", "should be 10"),
        ("messages", TEAM, {"sender": "eve"}, "damaged", "g:team 10", "from alice"),
        ("entries", INBOX, DELETE, "gap", "users/bob/inbox", "2 missing"),
        ("entries", INBOX, DELETE, "gap", "users/bob/inbox 3", "lacks p:alice:bob 2"),
        ("entries", INBOX, {"message": PRIVATE}, "duplicate", "users/bob/inbox 2", "1 is there before"),
        ("heads", "users/bob/inbox", {"head": 9}, "dangling", "users/bob/inbox 10", "ends at 9"),
        ("heads", "users/bob/inbox", {"head": 2}, "gap", "users/bob/inbox", "lacks p:"),
        ("heads", "g:team", {"n": 5}, "damaged", "g:team", "its head counts 5"),
        ("heads", "g:team", DELETE, "dangling", "g:team 1", "ends at 0"),
        ("sent", "alice|g:team|c-1", DELETE, "dangling", "g:team 1", "client_msg_id"),
        ("sent", "alice|g:team|c-1", {"seq": 9}, "duplicate", "g:team 1", "seq 9"),
        ("sent", "alice|g:team|", {"seq": 999}, "dangling", "sent alice|g:team|", "ends at 23"),
        ("events", f"{EVENTS}/0000000006", DELETE, "gap", EVENTS, "6 missing"),
        ("events", f"{EVENTS}/0000000006", {"body": b"["}, "checksum", f"{EVENTS} 6", "not the one"),
        ("conversations", "bob|p:alice:bob", DELETE, "dangling", "p:alice:bob", "not listed for bob"),
        ("conversations", "bob|p:alice:bob", {"read": 9}, "cursor", "bob in p:alice:bob", "up to 9"),
        ("sessions", "bob|phone", {"cursors": {"g:none": 5}}, "cursor", "session phone of bob", "at 0"),
        ("sessions", "bob|phone", {"inflight": b"\xc1"}, "damaged", "session phone of bob", "be read"),
        ("sessions", "bob|phone", {"next": 5}, "gap", "session phone of bob", "3 messages"),
        ("queued", "bob|phone|0000000001", {"message": b"\xc1"}, "damaged", "session phone", "queued"),
        ("retained", "open/1", {"properties": b"\xc1"}, "damaged", "retained message on open/1", "be read"),
    ],
)
async def test_damage(
    node: Stores,
    options: dict[str, Any],
    collection: str,
    which: str,
    change: dict[str, Any] | None,
    kind: str,
    where: str,
    words: str,
) -> None:
    with client() as connected:
        documents, hurt = connected[options["database"]][collection], {"_id": which}
        if change is DELETE:
            assert documents.delete_one(hurt).deleted_count == 1
        else:
            assert documents.update_one(hurt, {"$set": change}).modified_count == 1
    found = await verify(node)
    assert any(f.kind == kind and f.where.startswith(where) and words in f.detail for f in found), found


async def test_an_id_that_leads_elsewhere(node: Stores, options: dict[str, Any], scribe: Scribe) -> None:
    with client() as connected:
        ids = connected[options["database"]].ids
        one, other = ids.find_one({"message": TEAM}), ids.find_one({"message": PRIVATE})
        assert one is not None
        assert other is not None
        ids.update_one({"_id": one["_id"]}, {"$set": {"message": PRIVATE}})
    found = await verify(node)
    assert any(f.kind == "duplicate" and f.where == "g:team 10" for f in found), found
    assert any(f.kind == "dangling" and f.where == f"id {one['_id']}" for f in found), found


async def test_copies_are_refused(node: Stores, tmp_path: Path) -> None:
    assert node.upkeep is not None
    with pytest.raises(StoreError, match="mongodump"):
        await node.upkeep.copy(tmp_path)
