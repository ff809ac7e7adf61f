"""What a reader may see of entries about messages that are hidden from them."""

import json
from typing import Any

import msgspec
import pytest

from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.router import Router
from broker.domain.message import Content, Count, Stamped, amending, draft, read_body, stamp
from broker.domain.topics import parse_topic
from broker.domain.visibility import OPEN, Horizon, View, inbox_view, target_of, withheld
from broker.metrics import Metrics
from broker.ports import shown
from broker.session.tail import Tail
from broker.states import States
from broker.wire.encoder import Outgoing
from tests.outside.memory_store import Contents, MemoryMessageLog, MemoryStateStore, Opened

TEAM = "groups/team"


def said(text: str, message_id: int, seq: int, at: int) -> Stamped:
    content = Content(msgspec.Raw(msgspec.json.encode(text)))
    return stamp(draft("alice", parse_topic(TEAM), content), message_id, seq, (), at)


def edited(target: Stamped, message_id: int, seq: int, at: int) -> Stamped:
    content = Content(msgspec.Raw(b'"secret"'), type="edit")
    return stamp(amending("alice", read_body(target.body), content, ()), message_id, seq, (), at)


ONE, TWO = said("one", 1, 1, 100), said("two", 2, 2, 200)
EDIT_ONE, EDIT_TWO = edited(ONE, 3, 3, 300), edited(TWO, 4, 4, 400)


@pytest.mark.parametrize(
    ("horizon", "hidden"),
    [
        (OPEN, []),
        (Horizon(seq=1), [3]),
        (Horizon(seq=2), [3, 4]),
        (Horizon(since=100), []),
        (Horizon(since=101), [3]),
        (Horizon(since=201), [3, 4]),
        (inbox_view({}, 201), []),
        (inbox_view({"p:a:b": 2}, 201), []),
        (inbox_view({"g:team": 1, "p:a:b": None}, 201), [3]),
        (inbox_view({"g:team": None}, 101), [3]),
    ],
)
async def test_what_is_shown(horizon: View, hidden: list[int]) -> None:
    counted: list[int] = []
    log = MemoryMessageLog(Opened(Contents()))
    await log.append([ONE, TWO, EDIT_ONE, EDIT_TWO])
    entries = await shown(log, await log.read("g:team", 0, 10, 1 << 20), horizon, counted.append)
    found = [json.loads(entry.payload) for entry in entries]
    assert [entry["offset"] for entry in found] == [1, 2, 3, 4]
    assert [entry["offset"] for entry in found if "withheld" in entry] == hidden
    assert sum(counted) == len(hidden)
    for entry in found:
        if "withheld" not in entry:
            assert entry == json.loads(b'{"offset":%d,' % entry["offset"] + _body(entry["offset"])[1:])


def _body(offset: int) -> bytes:
    return (ONE, TWO, EDIT_ONE, EDIT_TWO)[offset - 1].body


async def test_what_is_about_a_message_that_is_not_there_is_withheld() -> None:
    log = MemoryMessageLog(Opened(Contents()))
    gone = [ONE, said("x", 2, 2, 200), edited(said("x", 99, 9, 900), 3, 3, 300)]
    await log.append(gone)
    entries = await shown(log, await log.read("g:team", 0, 10, 1 << 20), Horizon(seq=1), int)
    assert "withheld" in json.loads(entries[2].body)


def test_what_is_left_of_an_entry() -> None:
    left = json.loads(withheld(EDIT_ONE.body))
    whole = json.loads(EDIT_ONE.body)
    for field in ("id", "conversation_id", "seq", "type", "created_at"):
        assert left.pop(field) == whole[field]
    left.pop("n", None)
    assert left == {"content": None, "withheld": "not_visible"}


def test_what_an_entry_is_about() -> None:
    assert target_of(EDIT_ONE.body) == 1
    assert target_of(ONE.body) is None
    content = Content(msgspec.Raw(b'{"target_id":"7"}'))
    mentioned = stamp(draft("alice", parse_topic(TEAM), content), 1, 1, (), 0)
    assert target_of(mentioned.body) is None


class Reader:
    """A member of a group, with what it was offered."""

    def __init__(self, horizon: Horizon) -> None:
        self.tails = {TEAM: Tail(TEAM, "g:team", 0, 1, horizon)}
        self.offered: list[Outgoing] = []

    def offer_entry(self, _topic: str, _offset: int, outgoing: Outgoing) -> None:
        self.offered.append(outgoing)


def test_a_push_is_encoded_once_for_all_who_see_it_and_once_for_all_others() -> None:
    metrics, router = Metrics(), Router[Any]()
    states = States(MemoryStateStore(Opened(Contents())), metrics)
    fanout = Fanout(router, AwaySessions(states, [], 1, 1 << 20), states, metrics)
    old, new = [[Reader(Horizon(seq=seq)) for _ in range(3)] for seq in (0, 1)]
    for reader in old + new:
        router.add(TEAM, reader, 1)
    for stamped in (EDIT_ONE, EDIT_TWO):
        fanout.push(stamped)
    for readers in (old, new):
        assert len({id(reader.offered[0]) for reader in readers}) == 1
    assert b"secret" in old[0].offered[0].payload
    assert b"secret" not in new[0].offered[0].payload
    assert json.loads(new[0].offered[0].payload)["offset"] == 3
    assert {id(reader.offered[1]) for reader in old + new} == {id(old[0].offered[1])}
    assert b"secret" in new[0].offered[1].payload
    assert metrics.as_dict()["withheld"] == 3


def test_what_is_withheld_keeps_its_number() -> None:
    first = stamp(draft("alice", parse_topic(TEAM), Content(msgspec.Raw(b'"x"'))), 1, 1, (), 0, Count(1, 1))
    assert json.loads(withheld(first.body))["n"] == 1
