"""How many connections an address may have, and how fast they may come."""

import asyncio
from collections import Counter

from broker.net.addresses import Addresses
from broker.net.listeners import NoRoomError, Slots

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


def take(slots: Slots, file: int = 10) -> float | str:
    """The wait of a connection, or why there is no room for it."""
    try:
        return slots.take(HOME, Stream(file), NOW)
    except NoRoomError as error:
        return str(error)


def test_a_listener_that_is_full_asks_nobody() -> None:
    door, limited = addresses(most=2)
    slots = Slots(1, door, 100)
    assert [take(slots), take(slots)] == [0.0, "listener_full"]
    slots.give_back(HOME)
    assert take(slots) == 0.0
    other = Slots(0, door, 100)
    assert [take(other), take(other)] == [0.0, "address"]
    assert (slots.used, other.used) == (1, 1)
    assert limited == {"connections_per_address": 1}


def test_the_last_files_are_not_for_clients() -> None:
    door, limited = addresses(most=2)
    slots = Slots(0, door, 100)
    assert [take(slots, 100), take(slots, 2000), take(slots, 99)] == ["open_files", "open_files", 0.0]
    assert slots.used == 1
    assert not limited


def test_most_connections_are_not_asked_for_their_files_while_there_are_many_left() -> None:
    door, _ = addresses(most=100)
    slots = Slots(0, door, 5000)
    asked: list[int] = []

    class Asked(Stream):
        def fileno(self) -> int:
            asked.append(slots.used)
            return 4000 if slots.used > 20 else 10

    for _ in range(40):
        slots.take(HOME, Asked(0), NOW)
    assert asked == [0, 16, *range(32, 40)]
