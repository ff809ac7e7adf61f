"""A session that moves between nodes, which share a store and a bus in memory."""

import asyncio
import random
from collections import Counter

import pytest

from broker.domain.errors import RefusedError
from broker.domain.publication import Publication
from broker.ports import Moved, SessionKey
from broker.wire.packets import Ack, Publish
from tests.unit.backplane_kit import Bus, BusBackplane
from tests.unit.session_bench import Bench, Link, Store, settle
from tests.unit.session_kit import INBOX, KEY, NOTES, Limits, Wire, number

PLENTY = Limits(max_inflight=100, max_queued=100_000, max_queued_bytes=1 << 30)


class Nodes:
    """Nodes on one store."""

    def __init__(self, count: int = 2, limits: Limits = PLENTY) -> None:
        self.bus = Bus(is_slow=True)
        self.store = Store()
        names = [f"node-{number}" for number in range(count)]
        self.backplanes = [BusBackplane(self.bus, name) for name in names]
        self.benches = [Bench(limits, self.store, backplane) for backplane in self.backplanes]
        self.published = 0

    def publish(self, node: int) -> None:
        """To the open topic, with QoS 2. Its number is in the payload."""
        self.published += 1
        self.benches[node].fanout.forward(Publication(NOTES, b"%d" % self.published, 2))

    def append(self) -> None:
        """An entry of the inbox. Nodes find it when they read the log."""
        self.store.logs.setdefault(INBOX, []).append(2)
        for bench in self.benches:
            for session in bench.router.exact(INBOX):
                tail = session.tails.get(INBOX)
                if tail is not None:
                    session.grown(tail, len(self.store.logs[INBOX]))


class Receiver:
    """A client with QoS 2 that keeps the packet ids it has received (MQTT 3.1.1, figure 4.3, second
    method)."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.came: dict[str, list[int]] = {INBOX: [], NOTES: []}

    def read(self, link: Link, answers: int = 1_000_000) -> None:
        """Take what has come. Only so many packets are answered: the connection breaks before the others."""
        session = link.session
        for packet in link.outbox.take():  # type: ignore[attr-defined]
            if isinstance(packet, Publish):
                if packet.packet_id not in self.held:
                    self.held.add(packet.packet_id)
                    is_note = packet.topic == NOTES
                    self.came[packet.topic].append(int(packet.payload) if is_note else number(packet))
                if session is not None and answers > 0:
                    session.pubrec(packet.packet_id)
            elif isinstance(packet, Ack):
                self.held.discard(packet.packet_id)
                if session is not None and answers > 0:
                    session.pubcomp(packet.packet_id)
            answers -= 1


async def opened(bench: Bench, clean: bool = False) -> Link:
    link = Link(bench, Wire(), clean)
    await settle()
    return link


async def subscribed(nodes: Nodes) -> Link:
    link = await opened(nodes.benches[0])
    link.subscribe((INBOX, 2), (NOTES, 2))
    await settle()
    return link


async def test_a_session_is_taken_over_with_all_that_it_has() -> None:
    nodes = Nodes()
    first = await subscribed(nodes)
    nodes.append()
    nodes.publish(0)
    await settle()
    second = await opened(nodes.benches[1])
    assert first.closed
    assert second.present
    receiver = Receiver()
    receiver.read(second)
    assert receiver.came == {INBOX: [1], NOTES: [1]}
    nodes.publish(0)
    nodes.append()
    await settle()
    receiver.read(second)
    assert receiver.came == {INBOX: [1, 2], NOTES: [1, 2]}
    assert [len(bench.online) for bench in nodes.benches] == [0, 1]
    assert nodes.bus.devices[KEY.user][KEY.client_id].gateway == "node-1"


async def test_what_a_connection_leaves_is_stored_before_another_node_claims_it() -> None:
    nodes = Nodes()
    first = await subscribed(nodes)
    nodes.publish(0)
    nodes.store.commits.clear()
    first.close("lost")
    second = await opened(nodes.benches[1])
    assert second.present is None, "it waits"
    nodes.store.commits.set()
    await settle()
    assert second.present
    receiver = Receiver()
    receiver.read(second)
    assert receiver.came[NOTES] == [1]
    assert not second.closed


async def test_two_nodes_claim_a_session_at_once_and_one_has_it() -> None:
    nodes = Nodes()
    (await subscribed(nodes)).close("lost")
    for round_ in range(200):
        order = random.Random(round_)
        links = []
        for bench in order.sample(nodes.benches, 2):
            links.append(Link(bench, Wire()))
            for _ in range(order.randrange(6)):
                await asyncio.sleep(0)
        await settle(100)
        left = [link for link in links if not link.closed]
        assert len(left) == 1, f"round {round_}"
        session = left[0].session
        assert session is not None
        assert session.epoch == nodes.store.epochs[KEY]
        assert [len(bench.online) for bench in nodes.benches].count(1) == 1
        left[0].close("lost")
        await settle()
    assert not nodes.bus.devices[KEY.user]


async def test_who_has_lost_a_session_without_being_told_ends_at_its_next_write() -> None:
    nodes = Nodes()
    first = await subscribed(nodes)
    nodes.bus.devices.clear()
    second = await opened(nodes.benches[1])
    assert not first.closed
    cursors = dict(nodes.store.sessions[KEY].cursors)
    assert first.session is not None
    nodes.benches[0].states.submit([Moved(KEY, {INBOX: 99}, None, first.session.epoch)])
    await settle()
    assert first.closed
    assert not second.closed
    assert nodes.store.sessions[KEY].cursors == cursors
    second.close("lost")
    await settle()
    nodes.publish(0)
    await settle()
    third = await opened(nodes.benches[0])
    receiver = Receiver()
    receiver.read(third)
    assert receiver.came[NOTES] == [1]


@pytest.mark.parametrize("seed", range(5))
async def test_a_session_that_hops_under_traffic_gets_all_once(seed: int) -> None:
    order = random.Random(seed)
    nodes = Nodes(3)
    link, receiver = await subscribed(nodes), Receiver()
    for _ in range(200):
        for _ in range(order.randrange(8)):
            nodes.publish(order.randrange(3))
            if order.random() < 0.3:
                nodes.append()
            for _ in range(order.randrange(3)):
                await asyncio.sleep(0)
        receiver.read(link, order.choice([0, 1, 1000]))
        if order.random() < 0.5:
            link.close("lost")
        for _ in range(order.choice([0, 1, 5, 60])):
            await asyncio.sleep(0)
            if order.random() < 0.3:
                nodes.publish(order.randrange(3))
        link = Link(order.choice(nodes.benches), Wire())
        for _ in range(order.choice([3, 20, 80])):
            await asyncio.sleep(0)
            if order.random() < 0.2:
                nodes.publish(order.randrange(3))
    await settle(200)
    for _ in range(nodes.published):
        receiver.read(link)
        await settle(5)
    for topic, last in ((NOTES, nodes.published), (INBOX, len(nodes.store.logs[INBOX]))):
        times = Counter(receiver.came[topic])
        assert not [each for each, count in times.items() if count > 1], f"{topic}: came twice"
        assert sorted(times) == list(range(1, last + 1)), f"{topic}: missing"


async def test_others_stand_in_for_the_sessions_of_a_node_that_has_died() -> None:
    nodes = Nodes(3)
    await subscribed(nodes)
    bob = SessionKey("bob", "phone")
    Link(nodes.benches[1], Wire(), key=bob)
    await settle()
    del nodes.bus.mail["node-0"]
    nodes.backplanes[0].hints.is_cut = True
    nodes.benches[1].live = [KEY.user, bob.user]
    for _ in range(2):  # it is done again if the first one dies in the middle of it
        await nodes.backplanes[1].members.gone("node-0")
        await settle()
    assert nodes.benches[1].offline == [KEY.user] * 2
    assert list(nodes.bus.devices[bob.user]) == [bob.client_id]
    for node in (1, 2):
        nodes.publish(node)
    await settle()
    link, receiver = await opened(nodes.benches[2]), Receiver()
    nodes.publish(1)
    await settle()
    receiver.read(link)
    assert receiver.came[NOTES] == [1, 2, 3]


async def test_nothing_is_queued_for_a_session_that_is_connected_elsewhere() -> None:
    nodes = Nodes()
    link = await subscribed(nodes)
    for _ in range(5):
        nodes.publish(1)
        await settle()
    assert not nodes.store.sessions[KEY].queue
    receiver = Receiver()
    receiver.read(link)
    assert receiver.came[NOTES] == [1, 2, 3, 4, 5]


async def test_the_connections_of_all_nodes_count() -> None:
    nodes = Nodes(limits=Limits(connections_per_user=2))
    await opened(nodes.benches[0])
    other = Link(nodes.benches[1], Wire(), key=SessionKey(KEY.user, "tablet"))
    await settle()
    assert not other.closed
    third = Link(Bench(), Wire())
    with pytest.raises(RefusedError, match="connections_per_user"):
        await nodes.benches[1].registry.attach(third, SessionKey(KEY.user, "watch"), True, print)
    await settle()
    assert set(nodes.bus.devices[KEY.user]) == {"phone", "tablet"}


async def test_a_connection_takes_one_round_trip() -> None:
    nodes = Nodes()
    trips = nodes.bus.trips
    await subscribed(nodes)
    assert nodes.bus.trips == trips + 1
