"""What one node delivers reaches the readers on the others."""

import json
from typing import Any

import msgspec
import pytest

from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.frames import PublicationFrame, decode_frame, encode_frame
from broker.delivery.interest import Interest
from broker.delivery.moves import Moves
from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.domain.message import Amendment, Content, Draft, amending, draft, read_body, stamp
from broker.domain.publication import Properties, Publication
from broker.domain.topics import parse_topic
from broker.domain.visibility import Horizon
from broker.metrics import Metrics
from broker.ports import Hint, KeptEvent
from broker.states import States
from broker.wire.packets import Publish
from tests.unit.backplane_kit import Bus, BusHints
from tests.unit.session_bench import Store
from tests.unit.session_kit import Wire, connect, follow

TEAM = "groups/team"


class Place:
    """The delivery of one node, with one session."""

    def __init__(self, bus: Bus) -> None:
        self.hints = BusHints(bus)
        self.metrics = Metrics()
        self.interest = Interest(self.hints)
        self.router: Router[Subscriber] = Router(self.interest)
        states = States(Store(), self.metrics)
        away = AwaySessions(states, [], 1, 1 << 20)
        self.fanout = Fanout(
            self.router, away, states, self.metrics, self.hints, self.interest, Moves(lambda: 0, 1)
        )
        self.hints.received = self.fanout.receive
        self.wire = Wire()
        self.session = connect(self.wire)

    def reads(self, topic: str, qos: int = 1) -> None:
        follow(self.session, topic, qos=qos)
        self.router.add(topic, self.session, qos)

    def came(self) -> list[Publish]:
        return [packet for packet in self.wire.take() if isinstance(packet, Publish)]

    def payloads(self) -> list[Any]:
        return [json.loads(packet.payload) for packet in self.came()]


@pytest.fixture
def two() -> tuple[Place, Place]:
    bus = Bus()
    return Place(bus), Place(bus)


def to_team(text: str) -> Draft:
    return draft("alice", parse_topic(TEAM), Content(msgspec.Raw(json.dumps(text).encode())), 2)


def test_an_entry_reaches_live_readers_on_another_node(two: tuple[Place, Place]) -> None:
    here, there = two
    there.reads(TEAM, 2)
    here.fanout.push(stamp(to_team("hi"), 7, 1, (), 0))
    (packet,) = there.came()
    assert (packet.topic, packet.qos) == (TEAM, 2)
    assert json.loads(packet.payload)["offset"] == 1
    assert there.metrics.totals["stored"] == 0


def test_an_entry_that_was_not_told_is_missed_by_the_next_one(two: tuple[Place, Place]) -> None:
    here, there = two
    there.reads(TEAM)
    there.hints.is_cut = True
    here.fanout.push(stamp(to_team("lost"), 7, 1, (), 0))
    there.hints.is_cut = False
    for _ in range(2):  # a hint that comes twice is one
        here.fanout.push(stamp(to_team("seen"), 8, 2, (), 0))
    assert there.came() == []
    assert there.wire.told() == ["lagging", "lagging"]
    assert there.session.behind[TEAM].head == 2


def test_both_logs_of_a_private_message_and_events(two: tuple[Place, Place]) -> None:
    here, there = two
    there.reads("users/alice/inbox")
    there.reads("users/alice/events")
    private = draft("bob", parse_topic("users/alice/inbox"), Content(msgspec.Raw(b"1")))
    here.fanout.push(stamp(private, 7, 3, (1, 5), 0))
    here.fanout.push_event(KeptEvent("users/alice/events", 1, b'{"event":"contact"}'))
    inbox, event = there.payloads()
    assert (inbox["seq"], inbox["offset"]) == (3, 1)
    assert event == {"event": "contact", "offset": 1}


def test_an_edit_of_what_a_reader_may_not_see_is_withheld_there(two: tuple[Place, Place]) -> None:
    here, there = two
    there.reads(TEAM)
    there.session.tails[TEAM].grant(1, Horizon(seq=1))
    there.session.tails[TEAM].advance(1)
    first = stamp(to_team("secret"), 7, 1, (), 0)
    edit = amending(
        "alice",
        read_body(first.body),
        Content(msgspec.Raw(b'"new secret"'), "edit"),
        (Amendment(1, b"{}"),),
    )
    here.fanout.push(stamp(edit, 8, 2, (), 0))
    (entry,) = there.payloads()
    assert entry["withheld"] == "not_visible"
    assert "secret" not in json.dumps(entry)
    assert there.metrics.totals["withheld"] == 1


def test_messages_that_are_not_stored_and_wildcards(two: tuple[Place, Place]) -> None:
    here, there = two
    there.router.add_wild("open/+", there.session, 1)
    here.fanout.forward(Publication("open/door", b"1", 2, properties=Properties(content_type="x")))
    here.fanout.forward(Publication("open/door/2", b"2"))
    here.fanout.broadcast("$SYS/uptime", b"3", qos=0)
    (packet,) = there.came()
    assert (packet.topic, packet.payload, packet.qos) == ("open/door", b"1", 1)
    there.router.discard("open/+", there.session)
    here.fanout.forward(Publication("open/door", b"4"))
    assert there.came() == []


def test_a_node_follows_what_it_has_readers_of(two: tuple[Place, Place]) -> None:
    _, there = two
    other = connect(Wire())
    for session in (there.session, other):
        there.router.add(TEAM, session, 1)
        there.router.add_wild("open/#", session, 1)
        there.router.add_wild("open/#", session, 0)  # another QoS is no other reader
    grown: list[int] = []
    stop = there.fanout.watch(TEAM, lambda: grown.append(1))
    there.router.discard(TEAM, there.session)
    there.router.discard(TEAM, other)
    there.router.discard("open/#", there.session)
    assert sorted(there.hints.following) == [TEAM, "open/#"]
    there.fanout.receive(Hint(TEAM, encode_frame(PublicationFrame(b"", 0))))
    stop()
    stop()
    there.router.discard("open/#", other)
    assert sorted(there.hints.following) == []


async def test_what_is_announced_is_followed_until_its_readers_count(two: tuple[Place, Place]) -> None:
    _, there = two
    await there.interest.announce([TEAM, "open/#"])
    there.router.add(TEAM, there.session, 1)
    there.interest.release([TEAM, "open/#"])
    assert list(there.hints.following) == [TEAM]


def test_watchers_on_another_node_are_told(two: tuple[Place, Place]) -> None:
    here, there = two
    grown: list[int] = []
    there.fanout.watch(TEAM, lambda: grown.append(1))
    here.fanout.push(stamp(to_team("hi"), 7, 1, (), 0))
    assert grown == [1]


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x91\xa7unknown", b"\x92\xa5entry\xa1x"])
def test_a_frame_of_another_release_does_no_harm(two: tuple[Place, Place], body: bytes) -> None:
    here, _ = two
    here.fanout.receive(Hint(TEAM, body))
    assert here.metrics.dropped["hint_unknown"] == 1


def test_a_frame_with_more_fields_than_are_known_is_read() -> None:
    known = PublicationFrame(b"x", 1)
    fields = msgspec.msgpack.decode(encode_frame(known))
    assert decode_frame(msgspec.msgpack.encode([*fields, "new"])) == known
