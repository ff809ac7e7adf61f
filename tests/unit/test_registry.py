"""Sessions nobody is connected to: their stand-ins, and events that happen while one comes back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.delivery.subscriptions import Subscriptions
from broker.metrics import Metrics
from broker.ports import Gate, Identity, Principal, Saved, SessionKey, SessionState
from broker.publish.pipeline import Pipeline, Publisher
from broker.registry import Client, Event, Registry
from broker.session.session import Session
from broker.states import States
from plugins.persistence.sqlite import SqliteStateStore, open_database
from tests.unit.session_kit import Limits, Wire

KEY = SessionKey("bob", "phone")
EVENTS = "users/bob/events"


class Parts:
    """A registry over a real store, with nobody connected."""

    def __init__(self, store: SqliteStateStore) -> None:
        metrics = Metrics()
        self.router: Router[Subscriber] = Router()
        self.states = States(store, metrics)
        pipeline = Pipeline(self.router, cast("Gate", None), self.states, metrics)
        self.registry = Registry(
            self.router,
            cast("Subscriptions", None),
            self.states,
            pipeline,
            metrics,
            Limits(),
            ["open/#"],
            lambda: 1000,
        )

    async def keep(self, topic_filter: str) -> None:
        state = SessionState({topic_filter: 1}, {}, [], [], [])
        await self.states.save([Saved(KEY, state, 1000)])

    async def queued(self) -> list[str]:
        state = await self.states.load(KEY)
        return [] if state is None else [message.payload.decode() for message in state.queue]


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    database = open_database(tmp_path / "parley.db")
    yield Parts(SqliteStateStore(database))
    await database.close()


async def test_stand_ins_go_with_their_sessions(parts: Parts) -> None:
    await parts.keep("open/a")
    await parts.registry.load_away()
    assert parts.router.plan("open/a")
    await parts.registry.drop_expired()
    assert parts.router.plan("open/a"), "the session is still kept"
    assert await parts.states.store.expire(2000, [], 3000) == 1
    await parts.registry.drop_expired()
    assert not parts.router.plan("open/a")


async def test_an_event_for_who_is_away_is_queued(parts: Parts) -> None:
    await parts.keep(EVENTS)
    await parts.registry.queue_events([Event("bob", EVENTS, b"one", frozenset())])
    assert await parts.queued() == ["one"]


async def test_an_event_is_not_queued_for_who_had_it(parts: Parts) -> None:
    await parts.keep(EVENTS)
    await parts.registry.queue_events([Event("bob", EVENTS, b"one", frozenset((KEY,)))])
    assert await parts.queued() == []


async def test_an_event_reaches_who_came_back_meanwhile(parts: Parts) -> None:
    await parts.keep(EVENTS)
    outbox = Wire()
    session = Session(KEY, Identity("bob"), True, outbox, Limits(), outbox)
    client = _Connected(session)
    parts.registry.online[KEY] = cast("Client", client)
    await parts.registry.queue_events([Event("bob", EVENTS, b"one", frozenset())])
    assert b"one" in outbox.bytes
    assert await parts.queued() == []


class _Connected:
    closed = False
    will = None

    def __init__(self, session: Session) -> None:
        self.session = session
        self.publisher = Publisher(Principal(session.identity))
