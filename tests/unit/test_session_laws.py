"""The tables of `broker.session.laws` agree with the laws above them.

`test_session_machine` checks that sessions follow the tables, and that clients can rely on them.
"""

from enum import IntEnum

import pytest

from broker.session.laws import ENTRY, PACKET_ID, TAIL, EntryState, Event, IdState, Table, TailState, after

QOS_1 = {IdState.SENT_1, IdState.UNSENT_1}
QOS_2 = {IdState.SENT_2, IdState.UNSENT_2, IdState.RELEASED}
MOVES = [(event, state, then) for event, row in PACKET_ID.items() for state, then in row.items()]

Tables = Table[IdState] | Table[EntryState] | Table[TailState]


def moves(table: Tables) -> set[tuple[IntEnum, IntEnum]]:
    return {(state, then) for row in table.values() for state, then in row.items()}


@pytest.mark.parametrize(
    ("table", "first"),
    [(PACKET_ID, IdState.FREE), (ENTRY, EntryState.PLAIN), (TAIL, TailState.PARKED)],
)
def test_each_state_is_come_to_and_left(table: Tables, first: IntEnum) -> None:
    reached: set[IntEnum] = {first}
    for _ in type(first):
        reached |= {then for state, then in moves(table) if state in reached}
    assert reached == set(type(first))
    assert {state for state, _ in moves(table)} == reached
    assert all(state is not then for state, then in moves(table)), "a row that changes nothing"


def test_events_of_no_table() -> None:
    assert set(Event) == PACKET_ID.keys() | ENTRY.keys() | TAIL.keys()


@pytest.mark.parametrize(("event", "state", "then"), MOVES)
def test_a_packet_id_keeps_its_qos_till_it_is_free(event: Event, state: IdState, then: IdState) -> None:
    """[MQTT-2.3.1-4]"""
    assert {state, then} <= QOS_1 | {IdState.FREE} or {state, then} <= QOS_2 | {IdState.FREE}


def test_what_frees_a_packet_id() -> None:
    """[MQTT-4.3.2-1] [MQTT-4.3.3-1]"""
    frees = {(event, state) for event, state, then in MOVES if then is IdState.FREE}
    assert frees == {
        (Event.PUBACK, IdState.SENT_1),
        (Event.PUBACK, IdState.UNSENT_1),
        (Event.PUBCOMP, IdState.RELEASED),
        (Event.LOSE, IdState.UNSENT_1),
    }


def test_what_is_released_is_not_sent_again() -> None:
    """[MQTT-4.3.3-1]"""
    assert {then for _, state, then in MOVES if state is IdState.RELEASED} == {IdState.FREE}


@pytest.mark.parametrize("state", [IdState.SENT_1, IdState.SENT_2])
def test_what_was_sent_is_sent_again_after_a_connection(state: IdState) -> None:
    """[MQTT-4.4.0-1]"""
    unsent = after(PACKET_ID, Event.RECONNECT, state)
    assert unsent not in {IdState.SENT_1, IdState.SENT_2}
    assert after(PACKET_ID, Event.RECONNECT, unsent) is unsent
    assert after(PACKET_ID, Event.PUBLISH_AGAIN, unsent) is state


@pytest.mark.parametrize("state", EntryState)
def test_nothing_is_remembered_of_what_the_reader_is_past(state: EntryState) -> None:
    assert after(ENTRY, Event.READ, state) is EntryState.PLAIN


def test_what_an_earlier_connection_left_is_known() -> None:
    assert after(ENTRY, Event.RESTORE_UNSENT, EntryState.PLAIN) is EntryState.UNSENT
    assert after(ENTRY, Event.RESTORE_HAD, EntryState.PLAIN) is EntryState.HAD


def test_an_unsent_entry_is_had_when_it_is_answered_and_anew_when_it_is_lost() -> None:
    assert after(ENTRY, Event.ANSWER, EntryState.UNSENT) is EntryState.HAD
    assert after(ENTRY, Event.LOSE, EntryState.UNSENT) is EntryState.PLAIN
    assert after(ENTRY, Event.LOSE, EntryState.HAD) is EntryState.HAD


def test_only_a_tail_that_has_caught_up_is_live() -> None:
    """[MQTT-4.6.0-6]"""
    assert {event for event, row in TAIL.items() if TailState.LIVE in row.values()} == {Event.CATCH_UP}
    assert after(TAIL, Event.MISS, TailState.LIVE) is TailState.BEHIND
    assert {after(TAIL, Event.PARK, state) for state in TailState} == {TailState.PARKED}


def test_an_event_without_a_row_changes_nothing() -> None:
    assert after(PACKET_ID, Event.PUBACK, IdState.SENT_2) is IdState.SENT_2
    assert after(PACKET_ID, Event.PUBCOMP, IdState.SENT_2) is IdState.SENT_2
    assert after(ENTRY, Event.ANSWER, EntryState.PLAIN) is EntryState.PLAIN
    assert after(TAIL, Event.MISS, TailState.BEHIND) is TailState.BEHIND
