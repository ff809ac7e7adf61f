"""Deadlines by the second, with the time passed in."""

from collections.abc import Callable

from broker.net.deadlines import Deadlines


class Watched:
    """Notes when it was checked, and answers as it is told."""

    def __init__(self, answer: Callable[[float], float | None] = lambda _now: None) -> None:
        self.checked: list[float] = []
        self.answer = answer

    def check(self, now: float) -> float | None:
        self.checked.append(now)
        return self.answer(now)


def run(deadlines: Deadlines, start: int, stop: int) -> None:
    for second in range(start, stop):
        deadlines.tick(second + 0.25)


def test_checked_once_soon_after_its_deadline() -> None:
    deadlines, watched = Deadlines(), Watched()
    deadlines.watch(watched, 10.5)
    run(deadlines, 0, 30)
    assert len(watched.checked) == 1
    assert 10.5 <= watched.checked[0] <= 12


def test_never_checked_before_its_deadline() -> None:
    for tenths in range(200):
        deadlines, watched = Deadlines(), Watched()
        deadlines.watch(watched, tenths / 10)
        for now in range(0, 250, 3):
            deadlines.tick(now / 10)
        (checked,) = watched.checked
        assert tenths / 10 <= checked <= tenths / 10 + 2


def test_checked_again_when_it_says() -> None:
    deadlines = Deadlines()
    watched = Watched(lambda now: now + 5 if now < 20 else None)
    deadlines.watch(watched, 3)
    run(deadlines, 0, 60)
    assert len(watched.checked) == 4
    assert all(5 <= b - a <= 7 for a, b in zip(watched.checked, watched.checked[1:], strict=False))


def test_a_later_deadline_replaces_an_earlier_one_and_the_reverse() -> None:
    deadlines, later, earlier = Deadlines(), Watched(), Watched()
    deadlines.watch(later, 5)
    deadlines.watch(later, 20)
    deadlines.watch(earlier, 20)
    deadlines.watch(earlier, 5)
    run(deadlines, 0, 40)
    assert [int(now) for now in later.checked] == [21]
    assert [int(now) for now in earlier.checked] == [6]


def test_forgotten() -> None:
    deadlines, watched = Deadlines(), Watched()
    deadlines.watch(watched, 5)
    deadlines.forget(watched)
    deadlines.forget(watched)
    run(deadlines, 0, 10)
    assert watched.checked == []
    deadlines.watch(watched, 15)
    run(deadlines, 10, 20)
    assert len(watched.checked) == 1


def test_a_deadline_in_the_past_is_for_the_next_tick() -> None:
    deadlines, watched = Deadlines(), Watched()
    deadlines.tick(100.0)
    deadlines.watch(watched, 50)
    deadlines.tick(100.9)
    assert watched.checked == []
    deadlines.tick(101.0)
    assert watched.checked == [101.0]


def test_ticks_that_were_missed_are_made_up_for() -> None:
    deadlines = Deadlines()
    every = [Watched() for _ in range(10)]
    for i, watched in enumerate(every):
        deadlines.watch(watched, i)
    deadlines.tick(1000.0)
    assert all(watched.checked == [1000.0] for watched in every)


def test_one_that_is_always_overdue_is_checked_once_a_tick() -> None:
    deadlines = Deadlines()
    watched = Watched(lambda now: now - 1)
    deadlines.watch(watched, 0)
    run(deadlines, 1, 6)
    assert len(watched.checked) == 5


def test_one_check_may_forget_another() -> None:
    """A connection that is closed for its keep-alive may take another one with it."""
    deadlines, later = Deadlines(), Watched()
    deadlines.watch(Watched(lambda _now: deadlines.forget(later)), 5)
    deadlines.watch(later, 6)
    deadlines.tick(10.0)
    assert later.checked == []


def test_one_check_may_forget_another_of_the_same_second() -> None:
    deadlines = Deadlines()
    pair = [Watched(), Watched()]
    pair[0].answer = lambda _now: deadlines.forget(pair[1])
    pair[1].answer = lambda _now: deadlines.forget(pair[0])
    for watched in pair:
        deadlines.watch(watched, 5)
    deadlines.tick(10.0)
    assert len(pair[0].checked) + len(pair[1].checked) == 1


def test_one_check_may_watch_others() -> None:
    deadlines, late = Deadlines(), Watched()

    def watch_late(now: float) -> None:
        deadlines.watch(late, now + 2)

    deadlines.watch(Watched(watch_late), 5)
    run(deadlines, 0, 20)
    assert [int(now) for now in late.checked] == [9]


def test_nothing_is_kept_of_what_is_done() -> None:
    deadlines = Deadlines()
    for i in range(100):
        deadlines.watch(watched := Watched(), i)
        if i % 2:
            deadlines.forget(watched)
    run(deadlines, 0, 102)
    assert not deadlines._buckets
    assert not deadlines._places
