"""What every `StateStore` does (broker.ports)."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker.domain.publication import Properties
from broker.domain.subscription import Subscription, by_filter
from broker.ports import (
    Enqueued,
    Forgotten,
    Lost,
    Moved,
    PacketIds,
    QueuedMessage,
    Redelivery,
    Retained,
    Saved,
    SessionKey,
    SessionState,
    StateChange,
)
from tests.subscribed import subscribed

if TYPE_CHECKING:
    from tests.ports.conftest import OpenedStores


PHONE = SessionKey("alice", "phone")
TABLET = SessionKey("alice", "tablet")
BOB = SessionKey("bob", "phone")
NOBODY = SessionKey("", "phone")
KEYS = [PHONE, TABLET, BOB, NOBODY]


def queued(text: str, packet_id: int = 0) -> QueuedMessage:
    return QueuedMessage("sensors/é", text.encode(), 1, packet_id=packet_id)


def state(**changes: object) -> SessionState:
    fields: dict[str, object] = {"filters": {}, "cursors": {}, "inflight": [], "received": [], "queue": []}
    return SessionState(**fields | changes)  # type: ignore[arg-type]


FULL = SessionState(
    filters=subscribed({"users/alice/inbox": 2, "groups/+": 1, "é/#": 0}),
    cursors={"users/alice/inbox": 7, "g:team": 1 << 31},
    inflight=[Redelivery(1, "g:team", 8, 1), Redelivery(65535, "users/alice/inbox", 9, 2, True)],
    received=[1, 2, 65535],
    queue=[
        QueuedMessage("a/b", b"\x00\xff", 2, True, packet_id=5, released=False),
        QueuedMessage("", b"", 2, False, packet_id=6, released=True),
        QueuedMessage("a/b", b"", 0),
    ],
    packet_ids=PacketIds(70_000, 70_512, ((1, 512), (65535, 65535))),
    lost={"users/alice/inbox": Lost(8, 1 << 31), "g:team": Lost(9, None)},
)


async def texts(stores: "OpenedStores", key: SessionKey = PHONE) -> list[str]:
    loaded = await stores.states.load(key)
    assert loaded is not None
    return [message.payload.decode() for message in loaded.queue]


async def dropped(stores: "OpenedStores", changes: list[StateChange]) -> int:
    return (await stores.states.apply(changes)).dropped


async def filters(
    stores: "OpenedStores", user: str | None = None
) -> dict[SessionKey, dict[str, Subscription]]:
    return {each.key: each.filters for each in await stores.states.subscriptions(user)}


# --- sessions -------------------------------------------------------------------------------


async def test_an_empty_store(stores: "OpenedStores") -> None:
    assert await stores.states.load(PHONE) is None
    assert await stores.states.subscriptions() == []
    assert await stores.states.subscriptions("alice") == []
    assert await stores.states.retained("#", "", 10) == []
    assert await stores.states.live_retained() == []
    assert await stores.states.expire(1 << 60, [], 0) == 0
    assert await dropped(stores, []) == 0


@pytest.mark.parametrize("saved", [FULL, state()], ids=["full", "empty"])
async def test_what_is_saved_is_loaded(stores: "OpenedStores", saved: SessionState) -> None:
    assert await dropped(stores, [Saved(PHONE, saved, 1)]) == 0
    assert await stores.states.load(PHONE) == saved
    await stores.reopen()
    assert await stores.states.load(PHONE) == saved


async def test_a_session_belongs_to_a_user_and_a_client_id(stores: "OpenedStores") -> None:
    for i, key in enumerate(KEYS):
        await stores.states.apply([Saved(key, state(cursors={"g:team": i}), 1)])
    for i, key in enumerate(KEYS):
        assert await stores.states.load(key) == state(cursors={"g:team": i})
    assert await stores.states.load(SessionKey("Alice", "phone")) is None
    assert await stores.states.load(SessionKey("alice", "Phone")) is None


async def test_saving_replaces_all(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, FULL, 1), Saved(TABLET, FULL, 1)])
    other = state(filters=subscribed({"a": 1}), cursors={"g:crew": 3}, queue=[queued("x")])
    await stores.states.apply([Saved(PHONE, other, 2)])
    assert await stores.states.load(PHONE) == other
    await stores.states.apply([Saved(PHONE, state(), 3)])
    assert await stores.states.load(PHONE) == state()
    assert await stores.states.load(TABLET) == FULL


async def test_changes_are_made_in_their_order(stores: "OpenedStores") -> None:
    await stores.states.apply(
        [
            Saved(PHONE, FULL, 1),
            Forgotten("alice", "phone"),
            Moved(PHONE, {"g:team": 5}),
            Saved(PHONE, state(cursors={"g:team": 1}), 1),
            Moved(PHONE, {"g:team": 2}),
            Moved(PHONE, {"g:team": 3, "g:crew": 9}),
        ]
    )
    assert await stores.states.load(PHONE) == state(cursors={"g:team": 3, "g:crew": 9})


async def test_cursors_move(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, FULL, 1), Saved(TABLET, FULL, 1)])
    await stores.states.apply([Moved(PHONE, {"g:team": 5, "g:new": 1}), Moved(PHONE, {})])
    loaded = await stores.states.load(PHONE)
    assert loaded is not None
    assert loaded.cursors == {"users/alice/inbox": 7, "g:team": 5, "g:new": 1}
    assert (loaded.filters, loaded.inflight, loaded.queue) == (FULL.filters, FULL.inflight, FULL.queue)
    assert await stores.states.load(TABLET) == FULL


async def test_packet_ids_are_saved_with_cursors_or_alone(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, FULL, 1), Saved(TABLET, FULL, 1)])
    ids = PacketIds(5, 517, ((9, 9),))
    await stores.states.apply([Moved(PHONE, {}, ids), Moved(PHONE, {"g:team": 5})])
    await stores.reopen()
    loaded = await stores.states.load(PHONE)
    assert loaded is not None
    assert loaded.packet_ids == ids
    assert loaded.cursors == FULL.cursors | {"g:team": 5}
    await stores.states.apply([Moved(PHONE, {"g:team": 6}, PacketIds(6, 518))])
    loaded = await stores.states.load(PHONE)
    assert loaded is not None
    assert loaded.packet_ids == PacketIds(6, 518)
    assert await stores.states.load(TABLET) == FULL


@pytest.mark.parametrize("change", [Moved(PHONE, {"g:team": 5}), Enqueued(PHONE, queued("x"), 10)])
async def test_a_session_that_is_not_kept_stays_unknown(
    stores: "OpenedStores", change: Moved | Enqueued
) -> None:
    assert await dropped(stores, [change]) == 0
    assert await stores.states.load(PHONE) is None
    assert await stores.states.subscriptions() == []
    await stores.states.apply([Saved(PHONE, state(), 1)])
    assert await stores.states.load(PHONE) == state()


async def test_forgetting(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(key, FULL, 1) for key in KEYS])
    await stores.states.apply([Forgotten("alice", "phone"), Forgotten("alice", "unknown")])
    assert [await stores.states.load(key) for key in KEYS] == [None, FULL, FULL, FULL]
    await stores.states.apply([Saved(PHONE, state(), 1)])  # nothing of the first is left
    assert await stores.states.load(PHONE) == state()
    await stores.states.apply([Forgotten("alice", None)])
    assert [await stores.states.load(key) for key in KEYS] == [None, None, FULL, FULL]
    await stores.states.apply([Forgotten("", None)])
    assert [await stores.states.load(key) for key in KEYS] == [None, None, FULL, None]
    await stores.states.apply([Saved(TABLET, state(), 1)])
    assert await stores.states.load(TABLET) == state()


async def test_subscriptions(stores: "OpenedStores") -> None:
    await stores.states.apply(
        [Saved(key, state(filters=subscribed({f"{i}/#": i})), 1) for i, key in enumerate(KEYS[1:])]
    )
    await stores.states.apply([Saved(PHONE, FULL, 1)])
    found = await filters(stores)
    assert found == {
        PHONE: FULL.filters,
        TABLET: subscribed({"0/#": 0}),
        BOB: subscribed({"1/#": 1}),
        NOBODY: subscribed({"2/#": 2}),
    }
    assert await filters(stores, "alice") == {
        PHONE: FULL.filters,
        TABLET: subscribed({"0/#": 0}),
    }
    assert await filters(stores, "") == {NOBODY: subscribed({"2/#": 2})}
    assert await stores.states.subscriptions("carol") == []


async def test_sessions_are_listed_in_order(stores: "OpenedStores") -> None:
    found = await stores.states.sessions(None, SessionKey("", ""), 10)
    assert found == []
    await stores.states.apply([Saved(key, state(), 5) for key in reversed(KEYS)])
    await stores.states.apply([Saved(PHONE, FULL, 7), Enqueued(PHONE, queued("x"), 10)])
    found = await stores.states.sessions(None, SessionKey("", ""), 10)
    assert [(each.key, each.saved_at) for each in found] == [(NOBODY, 5), (PHONE, 7), (TABLET, 5), (BOB, 5)]
    phone = found[1]
    assert (phone.filters, phone.cursors) == (FULL.filters, FULL.cursors)
    assert phone.waiting == 5, "four are queued, one was sent; of one only the release is left"

    async def keys(user: str | None, after: SessionKey, limit: int = 10) -> list[SessionKey]:
        return [each.key for each in await stores.states.sessions(user, after, limit)]

    assert await keys(None, SessionKey("", ""), 2) == [NOBODY, PHONE]
    assert await keys(None, PHONE) == [TABLET, BOB]
    assert await keys(None, SessionKey("alice", "z")) == [BOB]
    assert await keys("alice", SessionKey("", ""), 1) == [PHONE]
    assert await keys("alice", PHONE) == [TABLET]
    assert await keys("alice", TABLET) == []
    assert await keys("", SessionKey("", "")) == [NOBODY]
    assert await keys("carol", SessionKey("", "")) == []


async def test_client_ids(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(key, state(), 0) for key in KEYS])
    assert sorted(await stores.states.client_ids("alice", 10)) == ["phone", "tablet"]
    assert len(await stores.states.client_ids("alice", 1)) == 1
    assert await stores.states.client_ids("carol", 10) == []
    await stores.states.apply([Forgotten("alice", "phone")])
    assert await stores.states.client_ids("alice", 10) == ["tablet"]


async def test_expiry(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(key, FULL, at) for key, at in zip(KEYS, (10, 20, 30, 40), strict=True)])
    assert await stores.states.expire(10, [], 50) == 0
    assert await stores.states.expire(25, [PHONE], 50) == 1  # the tablet's
    assert [await stores.states.load(key) is not None for key in KEYS] == [True, False, True, True]
    assert await stores.states.expire(45, [SessionKey("no", "one")], 60) == 2
    assert await stores.states.load(PHONE) == FULL  # counts as saved at 50
    assert await stores.states.expire(50, [], 60) == 0
    assert await stores.states.expire(51, [], 60) == 1
    assert await stores.states.subscriptions() == []


async def test_a_session_saved_again_lives_on(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, FULL, 10)])
    await stores.states.apply([Saved(PHONE, state(), 30)])
    assert await stores.states.expire(20, [], 40) == 0
    assert await stores.states.load(PHONE) == state()


# --- queues ---------------------------------------------------------------------------------


async def test_a_queue_is_appended_to(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, state(queue=[queued("a"), queued("b")]), 1), Saved(BOB, FULL, 1)])
    changes = [Enqueued(PHONE, queued("c"), 10), Enqueued(PHONE, queued("d"), 10)]
    assert await dropped(stores, [*changes]) == 0
    await stores.reopen()
    assert await texts(stores) == ["a", "b", "c", "d"]
    assert await stores.states.load(BOB) == FULL


async def test_a_full_queue_drops_the_oldest_and_says_how_many(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, state(), 1), Saved(BOB, state(), 1)])
    changes = [Enqueued(PHONE, queued(f"{i}"), 3) for i in range(5)]
    assert await dropped(stores, changes) == 2
    assert await texts(stores) == ["2", "3", "4"]
    assert await dropped(stores, [Enqueued(PHONE, queued("x"), 3), Enqueued(BOB, queued("y"), 3)]) == 1
    assert await texts(stores) == ["3", "4", "x"]
    assert await texts(stores, BOB) == ["y"]
    assert await dropped(stores, [Enqueued(PHONE, queued("z"), 1)]) == 3  # the limit was lowered
    assert await texts(stores) == ["z"]


async def test_a_queue_of_many_bytes_drops_the_oldest(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, state(), 1)])
    large = [letter * 400 for letter in "abcd"]
    changes = [Enqueued(PHONE, queued(text), 10, 1000) for text in ["small", *large]]
    assert await dropped(stores, changes) == 3
    assert await texts(stores) == large[2:]
    assert await dropped(stores, [Enqueued(PHONE, queued("e" * 5000), 10, 1000)]) == 2
    assert await texts(stores) == ["e" * 5000], "there is always room for one"


async def test_a_queue_saved_anew_goes_before_what_comes_later(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, state(queue=[queued("a")]), 1), Enqueued(PHONE, queued("b"), 9)])
    await stores.states.apply(
        [Saved(PHONE, state(queue=[queued("c", 7)]), 2), Enqueued(PHONE, queued("d"), 9)]
    )
    loaded = await stores.states.load(PHONE)
    assert loaded is not None
    assert loaded.queue == [queued("c", 7), queued("d")]


async def test_what_a_publication_carries_is_kept_with_it(stores: "OpenedStores") -> None:
    properties = Properties(content_type="text/plain", user=(("a", "1"),), trace="00-1-2-01")
    kept = Retained("a", b"1", 1, properties=properties)
    waiting = QueuedMessage("a", b"1", 1, properties=properties)
    options = Subscription("a", 1, no_local=True, retain_as_published=True, retain_handling=2, identifier=7)
    await stores.states.apply([kept, Saved(PHONE, state(filters=by_filter([options])), 1)])
    await stores.states.apply([Enqueued(PHONE, waiting, 10)])
    assert await stores.states.retained("#", "", 10) == [kept]
    assert await stores.states.retained_on(["a"]) == {"a": kept}
    loaded = await stores.states.load(PHONE)
    assert loaded is not None
    assert loaded.queue == [waiting]
    assert loaded.filters == {"a": options}


# --- epochs ---------------------------------------------------------------------------------


async def test_a_claim_returns_the_state_and_raises_the_epoch(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, FULL, 1), Enqueued(PHONE, queued("x"), 10)])
    first = await stores.states.claim(PHONE, 5)
    second = await stores.states.claim(PHONE, 6)
    assert first.state == second.state == await stores.states.load(PHONE)
    assert second.state is not None
    assert [each.payload for each in second.state.queue][-1] == b"x"
    assert second.epoch > first.epoch
    (stored,) = await stores.states.sessions("alice", SessionKey("", ""), 10)
    assert stored.saved_at == 6
    assert [each.epoch for each in await stores.states.subscriptions()] == [second.epoch]


async def test_a_claim_makes_a_session_that_is_not_there(stores: "OpenedStores") -> None:
    now = 1_795_643_652_948
    claimed = await stores.states.claim(PHONE, now)
    assert claimed.state is None
    assert await stores.states.load(PHONE) == state()
    again = await stores.states.claim(PHONE, now + 1)
    assert again.state == state()
    assert again.epoch > claimed.epoch
    known = await stores.states.subscriptions()
    assert {type(each.epoch) for each in (claimed, again, *known)} == {int}, "it can be told to other nodes"


@pytest.mark.parametrize("is_saved", [True, False])
async def test_a_stale_epoch_writes_nothing(stores: "OpenedStores", is_saved: bool) -> None:
    if is_saved:
        await stores.states.apply([Saved(PHONE, state(cursors={"g:team": 1}), 1)])
    old = (await stores.states.claim(PHONE, 1000)).epoch
    new = (await stores.states.claim(PHONE, 1001)).epoch
    before = await stores.states.load(PHONE)
    stale = [
        Saved(PHONE, FULL, 7, old),
        Moved(PHONE, {"g:team": 9}, PacketIds(5, 517), old),
        Enqueued(PHONE, queued("x"), 10, epoch=old),
    ]
    applied = await stores.states.apply([*stale, Saved(TABLET, FULL, 7)])
    assert list(applied.stale) == stale
    assert await stores.states.load(PHONE) == before
    assert await stores.states.load(TABLET) == FULL, "other changes are made"
    fresh = [Moved(PHONE, {"g:team": 9}, None, new), Enqueued(PHONE, queued("y"), 10, epoch=new)]
    assert not (await stores.states.apply(fresh)).stale
    assert await texts(stores) == ["y"]
    assert not (await stores.states.apply([Saved(PHONE, FULL, 7, new)])).stale
    assert await stores.states.load(PHONE) == FULL
    assert not (await stores.states.apply([Moved(PHONE, {"g:team": 3})])).stale, "without an epoch"


async def test_no_epoch_of_a_session_that_was_deleted_comes_back(stores: "OpenedStores") -> None:
    old = (await stores.states.claim(PHONE, 1000)).epoch
    await stores.states.apply([Forgotten("alice", "phone")])
    assert (await stores.states.apply([Saved(PHONE, FULL, 1, old)])).stale
    assert await stores.states.load(PHONE) is None
    assert (await stores.states.claim(PHONE, 2000)).epoch > old
    assert (await stores.states.apply([Saved(PHONE, FULL, 1, old)])).stale


async def test_of_many_claims_at_once_one_is_the_last(stores: "OpenedStores") -> None:
    claims = await asyncio.gather(*(stores.states.claim(PHONE, 1000 + i) for i in range(20)))
    epochs = {each.epoch for each in claims}
    assert len(epochs) == 20
    assert sum(each.state is None for each in claims) == 1
    saves = [Saved(PHONE, state(cursors={"g:team": n}), n, n) for n in sorted(epochs)]
    applied = await stores.states.apply(saves)
    assert list(applied.stale) == saves[:-1]


async def test_a_claim_meets_writes_of_the_session(stores: "OpenedStores") -> None:
    """Whoever has the session writes on, until it learns that it is too late."""
    epoch = (await stores.states.claim(PHONE, 1000)).epoch
    is_over, is_writing = asyncio.Event(), asyncio.Event()

    async def write(number: int) -> None:
        offset = 0
        while not is_over.is_set():
            offset += 1
            change = Moved(PHONE, {f"g:{number}": offset}, None, epoch)
            if (await stores.states.apply([change])).stale:
                return
            if offset == 3:
                is_writing.set()
            await asyncio.sleep(0)

    async def claim() -> int:
        await is_writing.wait()
        claimed = await stores.states.claim(PHONE, 2000)
        is_over.set()
        return claimed.epoch

    results = await asyncio.gather(claim(), write(0), write(1))
    assert results[0] == epoch + 1


async def test_which_sessions_may_expire(stores: "OpenedStores") -> None:
    await stores.states.apply([Saved(PHONE, FULL, 10), Saved(TABLET, FULL, 20), Saved(BOB, FULL, 30)])
    assert set(await stores.states.expiring(30, 10)) == {PHONE, TABLET}
    assert len(await stores.states.expiring(30, 1)) == 1
    await stores.states.claim(PHONE, 40)
    assert await stores.states.expiring(30, 10) == [TABLET]
