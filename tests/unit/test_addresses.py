"""How many connections an address may have, and how fast they may come."""

import asyncio
import socket
from collections import Counter
from contextlib import ExitStack

import pytest

from broker.net.addresses import Addresses
from broker.net.listeners import Door, Slots

NOW = 1000.0
HOME = "192.0.2.1"


def addresses(
    most: int = 1000, per_second: int = 1000, patience: float = 10.0, *proxies: str
) -> tuple[Addresses, Counter[str]]:
    limited: Counter[str] = Counter()
    return Addresses(most, per_second, patience, proxies, limited), limited


def test_an_address_has_so_many_connections() -> None:
    door, limited = addresses(most=2)
    assert [door.enter(HOME, NOW) for _ in range(4)] == [0.0, 0.0, None, None]
    assert door.enter("192.0.2.2", NOW) == 0.0
    assert limited == {"connections_per_address": 2}
    door.leave(HOME)
    assert [door.enter(HOME, NOW) for _ in range(2)] == [0.0, None]


def test_a_network_of_version_6_is_one_address() -> None:
    door, _ = addresses(most=2)
    assert door.enter("2001:db8::1", NOW) == 0.0
    assert door.enter("2001:db8::2", NOW) == 0.0
    assert door.enter("2001:db8::3", NOW) is None
    assert door.enter("2001:db8:0:1::3", NOW) == 0.0


def test_who_comes_too_fast_waits_for_a_turn() -> None:
    door, limited = addresses(per_second=2, patience=3.0)
    assert [door.enter(HOME, NOW) for _ in range(20)] == [0.0] * 20
    waits = [door.enter(HOME, NOW) for _ in range(8)]
    assert [round(wait, 6) for wait in waits if wait is not None] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert waits[6:] == [None, None]
    assert limited == {"connects_per_second": 8}
    assert door.enter("192.0.2.2", NOW) == 0.0
    # Those that were turned away have cost nothing.
    assert door.enter(HOME, NOW + 3.5) == 0.0
    assert door.enter(HOME, NOW + 3.5) == 0.5


def test_who_waits_and_goes_leaves_no_trace() -> None:
    door, _ = addresses(most=1)
    for number in range(1000):
        assert door.enter(f"10.0.{number >> 8}.{number & 255}", NOW) == 0.0
        door.leave(f"10.0.{number >> 8}.{number & 255}")
    assert door._connections == {}


def test_proxies_have_no_limits() -> None:
    door, limited = addresses(1, 1, 0.0, "10.0.0.0/8", "2001:db8::7")
    assert [door.enter("10.1.2.3", NOW) for _ in range(50)] == [0.0] * 50
    assert [door.enter("::ffff:10.1.2.3", NOW) for _ in range(5)] == [0.0] * 5
    assert [door.enter("2001:db8::7", NOW) for _ in range(50)] == [0.0] * 50
    assert door.enter("", NOW) == 0.0
    assert door.enter("", NOW) is None
    assert limited == {"connections_per_address": 1}
    for _ in range(50):
        door.leave("10.1.2.3")


class Stream(asyncio.BaseTransport):
    """A transport whose socket has this file descriptor."""

    def __init__(self, file: int) -> None:
        super().__init__()
        self.file = file

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self

    def fileno(self) -> int:
        return self.file


def test_a_listener_that_is_full_asks_nobody() -> None:
    door, limited = addresses(most=2)
    away: list[str] = []
    slots = Slots(1, door, 100, away.append)
    assert [slots.take(HOME, Stream(10), NOW) for _ in range(2)] == [0.0, None]
    slots.give_back(HOME)
    assert slots.take(HOME, Stream(10), NOW) == 0.0
    other = Slots(0, door, 100, away.append)
    assert [other.take(HOME, Stream(10), NOW) for _ in range(2)] == [0.0, None]
    assert (slots.used, other.used) == (1, 1)
    assert away == ["listener_full", "address"]
    assert limited == {"connections_per_address": 1}


def test_the_last_files_are_not_for_clients() -> None:
    door, limited = addresses(most=2)
    away: list[str] = []
    slots = Slots(0, door, 100, away.append)
    assert [slots.take(HOME, Stream(file), NOW) for file in (100, 2000, 99)] == [None, None, 0.0]
    assert away == ["open_files"] * 2
    assert slots.used == 1
    assert not limited


def test_a_slot_is_taken_before_a_handshake_and_given_back_without_one() -> None:
    counted, _ = addresses(most=1)
    away: list[str] = []
    slots = Slots(0, counted, 1000, away.append)
    with Door(socket.create_server(("127.0.0.1", 0)), slots) as door:
        place = door.getsockname()
        with socket.create_connection(place), socket.create_connection(place):
            first, _ = door.accept()
            assert slots.used == 1
            with pytest.raises(ConnectionAbortedError):
                door.accept()
            assert away == ["address"]
            assert door.arrival(first.fileno()).wait == 0.0
            first.close()
            first.close()
        assert slots.used == 0
        with socket.create_connection(place):
            again, _ = door.accept()
            again.close()


def test_who_came_too_fast_begins_later() -> None:
    counted, _ = addresses(per_second=1)
    slots = Slots(0, counted, 1000, [].append)
    with Door(socket.create_server(("127.0.0.1", 0)), slots) as door, ExitStack() as stack:
        waits = []
        for _ in range(12):
            stack.enter_context(socket.create_connection(door.getsockname()))
            accepted, _ = door.accept()
            stack.enter_context(accepted)
            waits.append(door.arrival(accepted.fileno()).wait)
        assert waits[:10] == [0.0] * 10
        assert 0.5 < waits[10] <= 1.0 < waits[11] <= 2.0


def test_most_connections_are_not_asked_for_their_files_while_there_are_many_left() -> None:
    door, _ = addresses(most=100)
    slots = Slots(0, door, 5000, [].append)
    asked: list[int] = []

    class Asked(Stream):
        def fileno(self) -> int:
            asked.append(slots.used)
            return 4000 if slots.used > 20 else 10

    for _ in range(40):
        slots.take(HOME, Asked(0), NOW)
    assert asked == [0, 16, *range(32, 40)]
