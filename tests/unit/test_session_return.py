"""A session that reconnects to a node. During any await the connection may end, a right may be lost, or
the node may crash."""

import asyncio

import pytest

from broker.ports import QueuedMessage, Retained
from broker.wire.packets import Ack, Publish
from tests.unit.session_bench import Bench, Link, settle, yes
from tests.unit.session_kit import INBOX, KEY, NOTES, TEAM, Limits, Wire, number


async def came(link: Link) -> list[int]:
    """All that a client gets that acknowledges everything."""
    return [came for _ in range(8) for came in (await settle(), link.answer_all())[1]]


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


# --- UNSUBSCRIBE ----------------------------------------------------------------------------


def in_parts(link: Link) -> list[tuple[int, int, bool]]:
    """The number, packet id and DUP of each PUBLISH that came; nothing else may have come."""
    packets = link.outbox.take()
    assert all(isinstance(packet, Publish) for packet in packets), "a PUBREL without its PUBREC"
    return [(number(packet), packet.packet_id, packet.dup) for packet in packets]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("crashes", [False, True])
async def test_what_was_begun_is_completed_on_a_later_connection(qos: int, crashes: bool) -> None:
    bench = Bench()
    link = await opened(bench, (INBOX, qos))
    bench.append(INBOX, 2, 2, 2, 2)
    await settle()
    assert in_parts(link) == [(1, 1, False), (2, 2, False), (3, 3, False)]
    link.unsubscribe(INBOX)
    await settle()
    for _ in range(2):
        if crashes:
            bench = await bench.crash()
        else:
            link.close("lost")
        link = await opened(bench)
        assert in_parts(link) == [(1, 1, True), (2, 2, True), (3, 3, True)]
        assert len(bench.feeder) == 0
    bench.append(INBOX, 2)
    assert await came(link) == []
    assert link.session.counts == (3, 0)
    for packet_id in (1, 2, 3):
        (link.session.pubrec if qos == 2 else link.session.puback)(packet_id)
        link.session.pubcomp(packet_id)
    link.subscribe((INBOX, qos))
    await settle()
    bench.append(INBOX, 2, 2, 2)
    assert await came(link) == [6, 7, 8]
    assert link.session.counts == (0, 0)


async def test_an_unsubscribed_log_is_sent_again_with_a_full_window_and_something_retained() -> None:
    bench = Bench(Limits(max_inflight=2))
    bench.retained = [Retained(NOTES, b"7", 1)]
    link = await opened(bench, (INBOX, 1))
    bench.append(INBOX, 1, 1, 1)
    link.close("lost")
    bench.store.answers.clear()  # the log is not read before the packets have come
    link = await opened(bench)
    link.unsubscribe(INBOX)
    link.subscribe((NOTES, 1))
    bench.store.answers.set()
    assert sorted(await came(link)) == [1, 2, 7]


async def test_an_answer_that_comes_before_an_unsubscribed_log_is_read_is_taken() -> None:
    bench = Bench()
    link = await opened(bench, (INBOX, 2))
    bench.append(INBOX, 2, 2)
    await settle()
    link.close("lost")
    bench.store.answers.clear()
    link = await opened(bench)
    link.unsubscribe(INBOX)
    await settle()
    link.session.pubrec(1)
    bench.store.answers.set()
    await settle()
    assert [(type(packet), packet.packet_id) for packet in link.outbox.take()] == [(Ack, 1), (Publish, 2)]
    assert len(bench.feeder) == 0


async def test_a_right_that_is_lost_after_the_unsubscribe_stops_it() -> None:
    bench = Bench()
    bench.rights[TEAM] = 0
    link = await opened(bench, (TEAM, 1))
    bench.append(TEAM, 1, 1)
    link.unsubscribe(TEAM)
    await settle()
    link.close("lost")
    bench.store.answers.clear()
    link = await opened(bench)
    bench.revoke(TEAM)
    bench.store.answers.set()
    assert await came(link) == []
    assert link.session.counts == (0, 0)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_unsubscribed_log_that_fills_the_window_does_not_stop_the_others(when: str) -> None:
    bench = Bench()
    bench.rights[TEAM] = 0
    link = await opened(bench, (TEAM, 1), (INBOX, 1))
    bench.append(TEAM, 1, 1, 1)
    if when == "before":
        link.unsubscribe(TEAM)
        await settle()
    link.close("lost")
    bench.append(INBOX, 1)
    bench.append(INBOX, 1)
    link = Link(bench, Wire())
    if when == "after":
        link.unsubscribe(TEAM)
    await settle()
    assert in_parts(link) == [(1, 1, True), (2, 2, True), (3, 3, True)]
    for packet_id in (1, 2, 3):
        link.session.puback(packet_id)
    assert await came(link) == [1, 2]
    assert link.session.counts == (0, 0)


class Expired(Link):
    """A connection whose token ends while it is accepted."""

    def _accept(self, present: bool) -> None:
        super()._accept(present)
        self.close("token expired")


async def test_who_is_closed_when_accepted_finds_the_session_as_it_was() -> None:
    bench = Bench()
    link = await opened(bench, (INBOX, 1), (NOTES, 1))
    link.close("lost")
    bench.append(INBOX, 1)
    Expired(bench, Wire())
    await settle()
    bench.fanout.broadcast(NOTES, b"1", 1)
    link = await opened(bench)
    assert link.present
    assert await came(link) == [1, 1]


async def test_a_retained_message_waits_for_room_and_the_right_is_lost_meanwhile() -> None:
    bench = Bench(Limits(max_inflight=1))
    presence = "users/bob/presence"
    bench.rights = {INBOX: 0, presence: 0}
    bench.retained = [Retained(presence, b"7", 1)]
    link = await opened(bench, (INBOX, 1))
    bench.append(INBOX, 1)
    link.subscribe((presence, 1))
    await settle()
    bench.revoke(presence)
    assert await came(link) == [1]


async def test_filters_subscribed_to_again_are_not_counted_again() -> None:
    bench = Bench()
    bench.subscriptions.allow_filters(3)
    link = await opened(bench, ("open/a", 1), ("open/b", 1))
    link.subscribe(("open/a", 1), ("open/b", 1), ("open/c", 1), ("open/c", 1), ("open/d", 1))
    await settle()
    assert link.codes == [1, 1, 1, 1, 0x80]
