"""Presence of users whose devices are spread over nodes, and what is left of a node that has died."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from broker.cluster.counting import Counting
from broker.cluster.wills import Wills
from broker.domain.presence import PresenceDocument
from broker.domain.publication import Publication
from broker.metrics import Metrics
from broker.ports import Identity, Principal, Retained, Whereabouts
from broker.publish.publisher import Publisher
from broker.states import States
from broker.status.presence import Presence
from broker.tasks import Tasks
from tests.outside.memory_store.contents import Contents, Opened
from tests.outside.memory_store.state_store import MemoryStateStore
from tests.unit.backplane_kit import Bus, BusBackplane
from tests.unit.session_bench import settle


class Timer:
    def __init__(self) -> None:
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Place:
    """The presence of one node. `here`: user -> how many devices are connected to it."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self._cluster = cluster
        self.name = name
        self.here: dict[str, int] = {}
        self.ends: list[tuple[Timer, str, Callable[[], None]]] = []
        self.presence = Presence(self._publish, self._later, lambda: 7, self._claimed)
        self.backplane = BusBackplane(cluster.bus, name)
        self.counting = Counting(
            self.backplane, self.presence, lambda user: self.here.get(user, 0), cluster.status_of, Tasks()
        )

    def _publish(self, user: str, document: bytes, _live: bool) -> None:
        self._cluster.documents.append(msgspec.json.decode(document, type=PresenceDocument))

    def _later(self, user: str, left: Callable[[], None]) -> Timer:
        self.ends.append((Timer(), user, left))
        return self.ends[-1][0]

    def _claimed(self, user: str, status: str) -> None:
        self.counting.tell_claim(user, status)

    def claim(self, user: str, status: str) -> None:
        document = self.presence.claim(user, status.encode())
        assert isinstance(document, bytes)
        self._publish(user, document, True)

    async def connect(self, user: str, client_id: str) -> None:
        self.here[user] = self.here.get(user, 0) + 1
        device = Whereabouts(client_id, self.name, f"{self.name} {client_id}", 0)
        placed = await self.backplane.devices.connected(user, device)
        assert placed is not None
        self.counting.count(user, placed.devices)
        await settle()

    async def disconnect(self, user: str, client_id: str) -> None:
        self.here[user] -= 1
        left = await self.backplane.devices.disconnected(user, client_id, f"{self.name} {client_id}")
        self.counting.count(user, left)
        await settle()

    async def grace_ends(self) -> None:
        ends, self.ends = self.ends, []
        for timer, user, left in ends:
            if not timer.is_cancelled:
                await self.counting.leave(user, left)
        await settle()


class Cluster:
    def __init__(self) -> None:
        self.bus = Bus()
        self.documents: list[PresenceDocument] = []
        self.one, self.two = Place(self, "one"), Place(self, "two")

    async def status_of(self, _user: str) -> str | None:
        await asyncio.sleep(0)
        return self.documents[-1].status if self.documents else None

    @property
    def last(self) -> tuple[str, int]:
        return self.documents[-1].status, self.documents[-1].devices


async def test_devices_of_all_nodes_count() -> None:
    cluster = Cluster()
    await cluster.one.connect("alice", "phone")
    assert cluster.last == ("online", 1)
    await cluster.two.connect("alice", "laptop")
    assert cluster.last == ("online", 2)
    await cluster.one.disconnect("alice", "phone")
    assert cluster.last == ("online", 1)
    await cluster.two.disconnect("alice", "laptop")
    await cluster.two.grace_ends()
    assert cluster.last == ("offline", 0)


async def test_who_is_back_on_another_node_within_the_grace_period_stays_online() -> None:
    cluster = Cluster()
    await cluster.one.connect("alice", "phone")
    await cluster.one.disconnect("alice", "phone")
    await cluster.two.connect("alice", "phone")
    cluster.two.claim("alice", "busy")
    told = len(cluster.documents)
    await cluster.one.grace_ends()
    assert len(cluster.documents) == told, "the other node has said all"
    assert cluster.last == ("busy", 1)


async def test_a_claim_holds_when_another_device_connects_to_another_node() -> None:
    cluster = Cluster()
    await cluster.one.connect("alice", "phone")
    cluster.one.claim("alice", "away")
    await cluster.two.connect("alice", "laptop")
    assert cluster.last == ("away", 2)
    await cluster.one.disconnect("alice", "phone")
    assert cluster.last == ("away", 1)
    await cluster.one.connect("alice", "phone")
    assert cluster.last == ("away", 2)
    cluster.two.claim("alice", "busy")
    await settle()
    await cluster.one.connect("alice", "tablet")
    assert cluster.last == ("busy", 3)
    cluster.one.claim("alice", "online")
    await settle()
    await cluster.two.disconnect("alice", "laptop")
    assert cluster.last == ("online", 2)


async def test_nobody_is_set_offline_while_it_is_unknown_who_is_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.cluster.counting._RETRY_SECONDS", 0)
    cluster = Cluster()
    await cluster.one.connect("alice", "phone")
    await cluster.one.disconnect("alice", "phone")
    answers = [None, None, {"alice": [Whereabouts("laptop", "two", "c", 0)]}]
    pauses = []

    async def of(_users: list[str]) -> dict[str, list[Whereabouts]] | None:
        pauses.append(1)
        return answers.pop(0)

    cluster.one.backplane.devices.of = of  # type: ignore[method-assign,assignment]
    await cluster.one.grace_ends()
    assert len(pauses) == 3
    assert cluster.last == ("online", 1)


# --- wills ------------------------------------------------------------------------------


WILL = Publication("open/a", b"bye", 1, True)
ALICE = Publisher(Principal(Identity("alice")), client_id="phone")


async def test_the_wills_of_a_node_that_has_died_are_published_once() -> None:
    states = States(MemoryStateStore(Opened(Contents())), Metrics())
    dead, left = Wills(states, "dead"), Wills(states, "left")
    dead.keep("1", ALICE, WILL)
    dead.keep("2", ALICE, Publication("open/b", b"not this one"))
    dead.keep("3", ALICE, Publication("users/alice/presence", b"offline"))
    left.keep("4", ALICE, WILL)
    dead.drop("2")
    await states.save([Retained("open/a", b"x", 1)])
    published: list[tuple[str, str, Publication]] = []

    def publish(publisher: Publisher, will: Publication) -> None:
        published.append((publisher.principal.identity.user, publisher.client_id, will))

    await left.publish_of("dead", publish)
    await left.publish_of("dead", publish)
    assert published == [("alice", "phone", WILL)]
    await dead.publish_of("left", publish)
    assert len(published) == 2
    assert set(await states.store.held()) == {"open/a"}


async def test_a_node_that_starts_again_keeps_the_wills_of_its_clients() -> None:
    states = States(MemoryStateStore(Opened(Contents())), Metrics())
    before, now = Wills(states, "node"), Wills(states, "node")
    for number in range(250):
        before.keep(f"a{number}", ALICE, Publication("open/a", b"%d" % number))
        now.keep(f"b{number}", ALICE, WILL)
    published: list[bytes] = []

    def publish(_publisher: Publisher, will: Publication) -> None:
        published.append(will.payload)

    await states.save(())
    await now.publish_of("node", publish)
    assert sorted(map(int, published)) == list(range(250))
    assert len(await states.store.held()) == 250
