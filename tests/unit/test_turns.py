"""Reading in turns: a few visits in each turn of the event loop, over users."""

from broker.net.turns import VISITS, Turns
from tests.unit.turning_loop import Loop


class Bench:
    """Turns, and the clients that were visited, in their order."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.totals = {"turns_waited": 0}
        self.busy: list[bool] = []
        self.turns = Turns(self.loop.call_soon, 64, self.totals, self.busy.append)
        self.visited: list[str] = []

    def take_turn(self) -> list[str]:
        """The clients that are visited in the next turn of the event loop."""
        self.visited = []
        self.loop.turn()
        return self.visited


class Client:
    """A client with so many visits' worth of packets."""

    def __init__(self, bench: Bench, user: str, name: str, visits: int) -> None:
        self._bench = bench
        self._user = user
        self._name = name
        self._visits = visits
        bench.turns.wait(user, self)

    def visit(self) -> None:
        self._bench.visited.append(self._name)
        self._visits -= 1
        if self._visits:
            self._bench.turns.wait(self._user, self)


def test_connections_of_one_user_share_its_turns() -> None:
    bench = Bench()
    for number in range(100):
        Client(bench, "mallory", f"m{number}", 1000)
    Client(bench, "bob", "b", 3)
    Client(bench, "carol", "c", 1)
    assert bench.take_turn() == ["m0", "b", "c", "m1"]
    assert bench.take_turn() == ["b", "m2", "b", "m3"]
    assert bench.take_turn() == ["m4", "m5", "m6", "m7"]


def test_each_turn_of_the_loop_has_a_few_visits() -> None:
    bench = Bench()
    Client(bench, "mallory", "m", 10)
    assert [len(bench.take_turn()) for _ in range(4)] == [VISITS, VISITS, 2, 0]
    assert bench.loop.calls == []
    assert bench.totals == {"turns_waited": 10}


def test_a_user_who_waits_is_known() -> None:
    bench = Bench()
    Client(bench, "mallory", "m", 2 * VISITS)
    assert "mallory" in bench.turns.lines
    assert "bob" not in bench.turns.lines
    bench.take_turn()
    bench.take_turn()
    assert "mallory" not in bench.turns.lines


def test_it_is_busy_while_somebody_waits() -> None:
    bench = Bench()
    Client(bench, "mallory", "m", VISITS + 1)
    Client(bench, "bob", "b", 1)
    assert bench.busy == [True]
    bench.take_turn()
    assert bench.busy == [True]
    bench.take_turn()
    assert bench.busy == [True, False]
    Client(bench, "bob", "b", 1)
    assert bench.busy == [True, False, True]
