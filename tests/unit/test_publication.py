"""What a publication carries beside its topic and payload goes with it from the decoder to what is
encoded, whatever it passes through: the log, the live stream, a reader that catches up, what is retained."""

import asyncio
from collections import Counter
from typing import Any

from msgspec.structs import replace

from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.feeder import Feeder, RetainedQuery
from broker.delivery.router import Router
from broker.domain.errors import StoreError
from broker.domain.message import Stamped
from broker.domain.publication import Properties
from broker.domain.topics import Topic
from broker.metrics import Metrics
from broker.outage import Outage
from broker.ports import Identity, Principal, SessionKey
from broker.publish.committer import MessageCommitter, Outcome
from broker.publish.pipeline import Pipeline
from broker.publish.publisher import Publisher
from broker.publish.retained_space import RetainedLimits, RetainedSpace
from broker.publish.sequencer import Sequencer
from broker.session.session import Session
from broker.session.tail import Tail
from broker.states import States
from broker.wire.decoder import Decoder
from broker.wire.encoder import Outgoing
from broker.wire.packets import Publish
from tests.outside.memory_store import Contents, MemoryStateStore, Opened
from tests.unit.memory_log import MemoryLog
from tests.unit.session_bench import settle
from tests.unit.session_kit import Limits, Wire

NOTHING: Any = None
CARRIED = Properties(content_type="text/plain", user=(("a", "1"),), trace="00-1-2-01")
INBOX = "users/bob/inbox"


class Clock:
    def now_ms(self) -> int:
        return 1_764_000_000_000

    def growing_ms(self) -> int:
        return 1_764_000_000_000


class Gate:
    async def may_publish(self, _principal: Principal, _topic: Topic) -> None:
        return None


class Reader:
    """A session that records the properties of the messages it is offered."""

    def __init__(self) -> None:
        self.seen: list[Properties | None] = []

    def offer(self, outgoing: Outgoing, _qos: int) -> None:
        self.seen.append(outgoing.publication.properties)

    def offer_entry(self, _topic: str, _offset: int, outgoing: Outgoing) -> None:
        self.seen.append(outgoing.publication.properties)


class Parts:
    """A pipeline over stores in memory, with bob's reader on his inbox and on `open/a`."""

    def __init__(self) -> None:
        metrics = Metrics()
        router: Router[Any] = Router()
        self.log = MemoryLog()
        self.opened = Opened(Contents())
        self.states = States(MemoryStateStore(self.opened), metrics)
        self.fanout = Fanout(router, AwaySessions(self.states, ["open/#"], 10, 1 << 20), self.states, metrics)
        committer = MessageCommitter(
            self.log, Sequencer(0), Clock(), self.fanout.push, 100, Outage(), 10_000, Counter()
        )
        gate: Any = Gate()
        self.space = RetainedSpace(RetainedLimits(10, 1000), RetainedLimits(10, 1000), metrics.limited)
        self.fanout.on_retained(self.space.retained)
        rest = (NOTHING, NOTHING, NOTHING, NOTHING, self.space, metrics)
        self.pipeline = Pipeline(gate, NOTHING, committer, self.fanout, *rest)
        self.feeder = Feeder(self.log, self.states.retained, metrics)
        self.reader = Reader()
        for topic in (INBOX, "open/a"):
            router.add(topic, self.reader, 1)

    async def publish(self, packet: Publish) -> Outcome | None:
        answered: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()
        asked = self.pipeline.publish(Publisher(Principal(Identity("alice"))), packet, answered.set_result)
        if asked is not None:
            await asked
        return await answered


def decoded(topic: str, retain: bool = False) -> Publish:
    """A PUBLISH as it was decoded, with properties as a version that has some will give them."""
    decoder = Decoder(1000)
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + b"\x00\x01hi"
    decoder.feed(bytes((0x32 | retain, len(body))) + body)
    packet = decoder.next_packet()
    assert isinstance(packet, Publish)
    assert packet.properties is None, "3.1.1 has none"
    return replace(packet, properties=CARRIED)


class Catching(Session):
    """A session that records the properties of the entries read for it."""

    def __init__(self, seen: list[Properties | None]) -> None:
        wire = Wire()
        super().__init__(SessionKey("bob", "phone"), Identity("bob"), True, wire, Limits(), wire)
        self.seen = seen

    def send_entry(self, tail: Tail, offset: int, outgoing: Outgoing) -> None:
        self.seen.append(outgoing.publication.properties)
        super().send_entry(tail, offset, outgoing)

    def offer(self, outgoing: Outgoing, qos: int) -> None:
        self.seen.append(outgoing.publication.properties)
        super().offer(outgoing, qos)


async def test_through_the_log_and_the_live_stream() -> None:
    parts = Parts()
    assert isinstance(await parts.publish(decoded(INBOX)), Stamped)
    assert parts.reader.seen == [CARRIED]
    (entry,) = await parts.log.read(INBOX, 0, 10, 1 << 20)
    assert entry.properties == CARRIED


async def test_through_the_log_to_a_reader_that_catches_up() -> None:
    parts = Parts()
    await parts.publish(decoded(INBOX))
    caught_up: list[Properties | None] = []
    session = Catching(caught_up)
    session.add_tail(Tail(INBOX, INBOX, 0, 1))
    parts.feeder.lagging(session)
    await settle()
    assert caught_up == [CARRIED]


async def test_through_what_is_retained() -> None:
    parts = Parts()
    await parts.publish(decoded("open/a", retain=True))
    assert parts.reader.seen == [CARRIED]
    assert [kept.properties for kept in await parts.states.retained("open/#", "", 10)] == [CARRIED]
    seen: list[Properties | None] = []
    session = Catching(seen)
    session.grant({"open/#": 1}, frozenset())
    parts.feeder.send_retained(session, [RetainedQuery("open/#", 1, only_open=True)])
    await settle()
    assert seen == [CARRIED]


async def test_what_could_not_be_retained_takes_no_room() -> None:
    parts = Parts()
    await parts.publish(decoded("open/a", retain=True))
    before = dict(parts.space._held)
    assert before["open/a"].size == 8
    await parts.opened.close()
    publishing = [
        parts.publish(replace(decoded(topic, retain=True), payload=payload))
        for payload in (b"another", b"one more")
        for topic in ("open/a", "open/b")
    ]
    outcomes = await asyncio.gather(*publishing)
    assert all(isinstance(outcome, StoreError) for outcome in outcomes)
    assert parts.space._held == before


async def test_without_any_nothing_is_made() -> None:
    parts = Parts()
    await parts.publish(replace(decoded(INBOX), properties=None))
    await parts.publish(replace(decoded("open/a", retain=True), properties=None))
    assert parts.reader.seen == [None, None]
    (entry,) = await parts.log.read(INBOX, 0, 10, 1 << 20)
    assert entry.properties is None
