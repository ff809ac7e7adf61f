"""Sessions expire, but not while they are connected, to whatever node."""

from collections.abc import Collection, Sequence

import pytest

from broker.delivery.away import AwaySessions
from broker.delivery.fanout import Fanout
from broker.delivery.online import Online
from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.housekeeping import ConnectedSessions, Housekeeping
from broker.metrics import Metrics
from broker.ports import Saved, SessionKey, SessionState
from broker.registry import Client
from broker.states import States
from broker.status.sys import SysTopics
from broker.tasks import Tasks
from tests.outside.memory_store.contents import Contents, Opened
from tests.outside.memory_store.state_store import MemoryStateStore

THERE, AWAY = SessionKey("bob", "phone"), SessionKey("bob", "tablet")


class Limits:
    session_expiry = 1.0


def housekeeping(states: States, metrics: Metrics, connected: ConnectedSessions | None) -> Housekeeping:
    away = AwaySessions(states, [], 1, 1000, has_epochs=True)
    router: Router[Subscriber] = Router()
    fanout = Fanout(router, away, states, metrics)
    sys = SysTopics(states.retained, fanout.broadcast)
    none: Online[Client] = Online()
    return Housekeeping(
        None,  # type: ignore[arg-type]
        none,
        away,
        states,
        sys,
        metrics,
        Tasks(),
        lambda: 10_000,
        lambda: 10_000,
        dict,
        lambda: None,
        Limits(),
        0,
        connected,
    )


@pytest.mark.parametrize(
    ("known", "left"),
    [({THERE}, {THERE}), (set(), set()), (None, {THERE, AWAY})],
    ids=["one", "none", "unknown"],
)
async def test_a_session_that_is_connected_elsewhere_stays(
    known: set[SessionKey] | None, left: set[SessionKey]
) -> None:
    store, metrics = MemoryStateStore(Opened(Contents())), Metrics()
    states = States(store, metrics)
    await states.save([Saved(key, SessionState({}, {}, [], [], []), 1000) for key in (THERE, AWAY)])
    asked: list[Sequence[SessionKey]] = []

    async def connected(keys: Sequence[SessionKey]) -> Collection[SessionKey] | None:
        asked.append(keys)
        return None if known is None else [key for key in keys if key in known]

    jobs = [housekeeping(states, metrics, connected) for _ in range(2)]
    for each in jobs:
        await each.expire_sessions()
    assert {each.key for each in await store.subscriptions()} == left
    assert metrics.dropped["session_expired"] == 2 - len(left), "each is counted once"
    assert set(asked[0]) == {THERE, AWAY}


async def test_a_session_that_is_claimed_meanwhile_stays() -> None:
    store, metrics = MemoryStateStore(Opened(Contents())), Metrics()
    states = States(store, metrics)
    await states.save([Saved(THERE, SessionState({}, {}, [], [], []), 1000)])

    async def connected(_keys: Sequence[SessionKey]) -> Collection[SessionKey] | None:
        await store.claim(THERE, 10_000)
        return []

    await housekeeping(states, metrics, connected).expire_sessions()
    assert [each.key for each in await store.subscriptions()] == [THERE]
