"""A session that reconnects to a node. During any await the connection may end, a right may be lost, or
the node may crash."""

import asyncio

import pytest

from broker.ports import QueuedMessage, Retained
from tests.unit.session_kit import (
    INBOX,
    KEY,
    NOTES,
    TEAM,
    Bench,
    Limits,
    Link,
    Wire,
    settle,
    yes,
)


async def came(link: Link) -> list[int]:
    """All that a client gets that acknowledges everything."""
    return [number for _ in range(8) for number in (await settle(), link.answer_all())[1]]


async def opened(bench: Bench, *filters: tuple[str, int], clean: bool = False) -> Link:
    link = Link(bench, Wire(), clean)
    if filters:
        link.subscribe(*filters)
    await settle()
    return link


@pytest.mark.parametrize("filters", [(INBOX, TEAM), (TEAM, INBOX)])
async def test_a_full_window_of_one_log_does_not_stop_the_others(filters: tuple[str, str]) -> None:
    """What fills it must be sent again before anything waits for room."""
    bench = Bench()
    bench.rights = {INBOX: 0, TEAM: 0}
    link = await opened(bench, *((topic, 1) for topic in filters))
    bench.append(TEAM, 1, 1, 1)
    link.close("lost")
    bench.append(INBOX, 1)
    link = await opened(bench)
    assert sorted(await came(link)) == [1, 1, 2, 3]


async def test_a_presence_seen_again_while_grants_are_looked_up_is_sent() -> None:
    """The right to see it is lost and comes back during a look-up that another change began."""
    bench = Bench()
    presence = "users/bob/presence"
    bench.rights = {presence: 0}
    bench.retained = [Retained(presence, b"1", 1)]
    link = await opened(bench, (presence, 1))
    assert await came(link) == [1]
    bench.directory.clear()
    bench.spawn(bench.rights_of.follow(KEY.user))
    await settle()
    bench.revoke(presence)
    bench.retained = [Retained(presence, b"2", 1)]
    bench.give(presence, 0)
    bench.directory.set()
    assert await came(link) == [2]


async def test_a_group_joined_while_another_filter_is_subscribed_to_is_read_from_the_start() -> None:
    bench = Bench()
    link = await opened(bench, ("groups/+", 1))
    bench.directory.clear()
    link.subscribe((INBOX, 1))
    await settle()
    bench.give(TEAM, 0)
    bench.append(TEAM, 1)
    bench.directory.set()
    assert await came(link) == [1]


async def test_a_group_that_could_not_be_looked_at_is_read_in_the_end() -> None:
    bench = Bench()
    link = await opened(bench, ("groups/+", 1))
    bench.store.fails = True
    bench.give(TEAM, 0)
    bench.append(TEAM, 1)
    await settle()
    bench.store.fails = False
    assert await came(await opened(bench) if link.closed else link) == [1]


async def test_what_is_published_while_a_session_comes_back_is_not_lost() -> None:
    bench = Bench()
    link = await opened(bench, (NOTES, 1))
    link.close("lost")
    bench.directory.clear()
    link = await opened(bench)
    bench.fanout.broadcast(NOTES, b"1", 1)
    bench.directory.set()
    assert await came(link) == [1]


async def test_a_lost_connection_saves_nothing_more() -> None:
    """Its SUBSCRIBE goes on when the store answers; the session is another's by then, and clean."""
    bench = Bench()
    link = await opened(bench)
    bench.store.answers.clear()
    link.subscribe((INBOX, 1))
    await settle()
    await opened(bench, clean=True)
    bench.states.flush()
    bench.store.answers.set()
    await settle()
    assert KEY not in bench.store.sessions


async def test_a_lost_connection_is_not_fed() -> None:
    bench = Bench(Limits(max_inflight=1))
    bench.retained = [Retained(NOTES, b"1", 1), Retained(NOTES, b"2", 1)]
    link = await opened(bench)
    link.subscribe((NOTES, 1))
    while link.session is not None and NOTES not in link.session.grants:
        await settle(1)
    link.close("lost")
    await settle()
    assert len(bench.feeder) == 0


async def test_a_connection_that_waits_for_plugins_does_not_undo_what_another_did_meanwhile() -> None:
    bench = Bench()
    (await opened(bench, (INBOX, 1))).close("lost")
    await settle()
    bench.store.sessions[KEY].queue.append(QueuedMessage(NOTES, b"9", 1))
    asked = asyncio.Event()
    bench.plugins_say = asked.wait
    await opened(bench)
    bench.plugins_say = yes
    link = await opened(bench, ("groups/+", 1))
    assert await came(link) == [9]
    link.close("lost")
    asked.set()
    await settle()
    assert await came(await opened(bench)) == []
    assert set(bench.store.sessions[KEY].filters) == {INBOX, "groups/+"}


# --- after a crash --------------------------------------------------------------------------


async def test_cursors_stored_late_do_not_stop_the_reader() -> None:
    """They moved before the session was saved with a full window, and are stored after it."""
    bench = Bench()
    link = await opened(bench, (INBOX, 1))
    bench.append(INBOX, 1)
    link.answer_all()
    bench.append(INBOX, 0, 1, 1, 1)
    link.subscribe((NOTES, 1))
    await settle()
    bench.registry.save_cursors()
    await settle()
    bench = await bench.crash()
    link = await opened(bench)
    assert (await came(link))[-3:] == [3, 4, 5]


async def test_a_log_that_is_not_read_has_no_cursor_stored() -> None:
    bench = Bench()
    link = await opened(bench, (INBOX, 1))
    bench.append(INBOX, 1)
    link.unsubscribe(INBOX)
    await settle()
    link.session.puback(1)
    bench.registry.save_cursors()
    bench = await bench.crash()
    assert INBOX not in bench.store.sessions[KEY].cursors


async def test_an_entry_whose_release_was_lost_is_not() -> None:
    """A client may deliver a message at PUBREL (4.3.3), so no cursor passes an entry that may still need
    one."""
    bench = Bench()
    link = await opened(bench, (INBOX, 2))
    bench.append(INBOX, 2)
    link.session.pubrec(1)
    bench.registry.save_cursors()
    await settle()
    bench = await bench.crash()
    link = await opened(bench)
    assert link.outbox.take(), "neither PUBREL nor the entry"
