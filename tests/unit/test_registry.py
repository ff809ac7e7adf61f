"""Sessions that are away: their stand-ins, and what is queued while one is loaded."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.online import Online
from broker.delivery.reopening import reopen
from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.domain.errors import StoreError
from broker.domain.publication import Properties, Publication
from broker.domain.subscription import Subscription
from broker.metrics import Metrics
from broker.ports import Forgotten, Saved, SessionKey, SessionState, Subscribed
from broker.states import States
from plugins.persistence.sqlite import SqliteStateStore, open_database
from plugins.persistence.sqlite.database import Database
from tests.unit.session_bench import Bench, Link, Store, settle
from tests.unit.session_kit import KEY as KIT
from tests.unit.session_kit import Limits, Wire

KEY = SessionKey("bob", "phone")


class Parts:
    """The parts that handle sessions that are away, over a real store."""

    def __init__(self, store: SqliteStateStore) -> None:
        metrics = Metrics()
        self.states = States(store, metrics)
        self.away = AwaySessions(self.states, ["open/#"], 10, 1 << 20)
        router: Router[Subscriber] = Router()
        self.fanout = Fanout(router, self.away, self.states, metrics)

    async def keep(self, topic_filter: str) -> None:
        state = SessionState({topic_filter: Subscription(topic_filter, 1)}, {}, [], [], [])
        await self.states.save([Saved(KEY, state, 1000)])


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    database = open_database(tmp_path / "parley.db")
    yield Parts(SqliteStateStore(database))
    await database.close()


async def test_stand_ins_go_with_their_sessions(parts: Parts) -> None:
    said = Publication("open/a", b"x", 1)
    await parts.keep("open/a")
    await parts.away.load()
    assert parts.away.queue(said)
    await parts.away.drop_expired()
    assert parts.away.queue(said), "the session is still kept"
    assert await parts.states.store.expire(2000, [], 3000) == 1
    await parts.away.drop_expired()
    assert not parts.away.queue(said)


class Slow(SqliteStateStore):
    """Its next listings of sessions fail as said; `meanwhile` happens while the answer is on its way."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.failures: list[StoreError] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def subscriptions(self, user: str | None = None) -> list[Subscribed]:
        if self.failures:
            raise self.failures.pop()
        found = await super().subscriptions(user)
        self.meanwhile()
        return found


@pytest.fixture
async def slow(tmp_path: Path) -> AsyncIterator[Slow]:
    database = open_database(tmp_path / "slow.db")
    yield Slow(database)
    await database.close()


async def test_opened_topics_are_followed_though_the_store_failed(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delivery.reopening._RETRY_SECONDS", 0)
    parts, said = Parts(slow), Publication("new/a", b"x", 1)
    await parts.keep("new/a")
    await parts.away.load()
    slow.failures = [StoreError("busy"), StoreError("busy")]
    await reopen(parts.away, lambda: ["new/#"], Online())
    assert parts.away.queue(said)


def gone(parts: Parts) -> None:
    """A clean session has replaced it, and has ended."""
    parts.away.wake(KEY)
    parts.states.forget(Forgotten(KEY.user, KEY.client_id))


def removed(parts: Parts) -> None:
    parts.away.wake_all(KEY.user)


def unsubscribed(parts: Parts) -> None:
    """It was connected, has unsubscribed, and is away again."""
    parts.away.wake(KEY)
    parts.away.stand_in(KEY, {})


@pytest.mark.parametrize("happens", [gone, removed, unsubscribed])
async def test_a_session_that_came_and_went_while_topics_are_opened(
    slow: Slow, happens: Callable[[Parts], None]
) -> None:
    parts = Parts(slow)
    await parts.keep("new/a")
    await parts.away.load()
    slow.meanwhile = lambda: happens(parts)
    await parts.away.reopen(["new/#"], Online())
    assert not parts.away.queue(Publication("new/a", b"x", 1))
    assert parts.away.is_empty


async def test_what_a_publication_carries_waits_with_it(parts: Parts) -> None:
    properties = Properties(content_type="text/plain", user=(("a", "1"),), trace="00-1-2-01")
    await parts.keep("open/a")
    await parts.away.load()
    parts.fanout.forward(Publication("open/a", b"x", 1, properties=properties))
    state = await parts.states.load(KEY)
    assert state is not None
    assert [message.properties for message in state.queue] == [properties]


async def test_a_session_that_is_loaded_learns_what_was_queued_meanwhile(parts: Parts) -> None:
    await parts.keep("open/a")
    await parts.away.load()
    parts.away.begin_load(KEY)
    parts.away.queue(Publication("open/b", b"x", 1))
    parts.away.queue(Publication("open/a", b"x", 0))
    assert not parts.away.is_out_of_date(KEY)
    parts.away.queue(Publication("open/a", b"x", 1))
    assert parts.away.is_out_of_date(KEY)
    parts.away.begin_load(KEY)
    assert not parts.away.is_out_of_date(KEY)


class Leaving(Store):
    """While it is asked for a user's sessions, `leave` happens."""

    leave: Callable[[], None] = staticmethod(lambda: None)

    async def client_ids(self, user: str, limit: int) -> list[str]:
        found = await super().client_ids(user, limit)
        self.leave()
        return found


async def test_a_session_that_ends_while_a_new_one_is_checked_counts() -> None:
    """It is neither stored yet nor connected any more."""
    store = Leaving()
    bench = Bench(Limits(sessions_per_user=1), store)
    await bench.registry.load()
    first = Link(bench, Wire())
    await settle()
    store.leave = lambda: first.close("gone")
    refused = Link(bench, Wire(), key=SessionKey(KIT.user, "tablet"))
    await settle()
    assert first.closed
    assert refused.session is None
    assert bench.metrics.limited["sessions_per_user"] == 1
