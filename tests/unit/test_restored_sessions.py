"""What a restore does to stored sessions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from broker.ports import (
    Lost,
    PacketIds,
    QueuedMessage,
    Redelivery,
    Saved,
    SessionKey,
    SessionState,
    StoreContext,
    Stores,
)
from plugins.persistence.sqlite import SqlitePersistencePlugin
from server.restored_sessions import mark_sessions
from tests.ports.conftest import Scribe
from tests.subscribed import subscribed

PHONE = SessionKey("bob", "phone")
TEAM = "g:team"
FILTERS = subscribed({"groups/+": 2})


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[[int], Awaitable[Stores]]]:
    """`opened(entries)`: stores with so many entries in the log of a group."""
    async with AsyncExitStack() as stack:

        async def open_stores(entries: int) -> Stores:
            folder = tmp_path / f"stores of {entries}"
            folder.mkdir()
            stores = await SqlitePersistencePlugin.open_stores(
                SqlitePersistencePlugin.Config(), StoreContext(folder)
            )
            stack.push_async_callback(stores.close)
            scribe = Scribe()
            await stores.messages.append([scribe.group("team") for _ in range(entries)])
            return stores

        yield open_stores


async def save(
    stores: Stores, cursor: int, *inflight: Redelivery, queue: list[QueuedMessage] | None = None
) -> None:
    state = SessionState(FILTERS, {TEAM: cursor}, list(inflight), [1, 2], queue or [], PacketIds(700, 1200))
    await stores.states.apply([Saved(PHONE, state, 0)])


async def marked(stores: Stores, former: Stores | None = None) -> SessionState:
    assert await mark_sessions(stores, former, 5) == 1
    state = await stores.states.load(PHONE)
    assert state is not None
    # Nothing is left of the packets that the client may or may not hold.
    assert (state.inflight, state.received, state.packet_ids) == ([], [], PacketIds())
    assert state.filters == FILTERS
    return state


async def test_without_the_former_store(opened: Callable[[int], Awaitable[Stores]]) -> None:
    stores = await opened(5)
    await save(stores, 4)
    state = await marked(stores)
    assert (state.cursors, state.lost) == ({TEAM: 4}, {TEAM: Lost(6, None)})


async def test_what_was_not_acknowledged_is_sent_again(opened: Callable[[int], Awaitable[Stores]]) -> None:
    stores = await opened(5)
    await save(
        stores, 5, Redelivery(9, TEAM, 3, 1), Redelivery(8, TEAM, 2, 2, True), Redelivery(7, "g:x", 1, 1)
    )
    assert (await marked(stores)).cursors == {TEAM: 2}


async def test_the_former_store_knows_how_far_the_client_got(
    opened: Callable[[int], Awaitable[Stores]],
) -> None:
    stores, former = await opened(5), await opened(9)
    await save(stores, 2, Redelivery(9, TEAM, 1, 1))
    await save(former, 9, Redelivery(9, TEAM, 8, 1))
    state = await marked(stores, former)
    assert (state.cursors, state.lost) == ({TEAM: 5}, {TEAM: Lost(6, 9)})


async def test_nothing_that_the_client_knows_is_lost(opened: Callable[[int], Awaitable[Stores]]) -> None:
    stores, former = await opened(5), await opened(9)
    await save(stores, 2)
    await save(former, 4)
    state = await marked(stores, former)
    assert (state.cursors, state.lost) == ({TEAM: 4}, {TEAM: Lost(6, None)})


async def test_the_queue_is_kept_without_packet_ids(opened: Callable[[int], Awaitable[Stores]]) -> None:
    stores = await opened(1)
    sent = QueuedMessage("open/1", b"sent", 1, packet_id=5)
    released = QueuedMessage("", b"", 2, packet_id=6, released=True)
    await save(stores, 1, queue=[sent, released, QueuedMessage("open/1", b"waits", 1)])
    state = await marked(stores)
    assert [(each.payload, each.packet_id) for each in state.queue] == [(b"sent", 0), (b"waits", 0)]
