"""Queues that are served in turns."""

from broker.domain.lines import Lines, SharedLines


def drained(lines: Lines[str]) -> list[str]:
    items = []
    while (item := lines.take()) is not None:
        items.append(item)
    assert len(lines) == 0
    return items


def test_one_of_each_in_a_round() -> None:
    lines: Lines[str] = Lines(100)
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        assert lines.put(item[0], item) is None
    assert len(lines) == 6
    assert drained(lines) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_comes_while_a_long_line_waits_is_next() -> None:
    lines: Lines[str] = Lines(1000)
    for number in range(400):
        lines.put("a", f"a{number}")
    assert [lines.take() for _ in range(3)] == ["a0", "a1", "a2"]
    lines.put("b", "b0")
    assert [lines.take() for _ in range(3)] == ["a3", "b0", "a4"]


def test_the_longest_line_gives_way() -> None:
    lines: Lines[str] = Lines(4)
    for item in ("a1", "a2", "a3", "a4"):
        assert lines.put("a", item) is None
    assert lines.put("a", "a5") == "a5"
    assert lines.put("b", "b1") == "a4"
    assert lines.put("c", "c1") == "a3"
    assert drained(lines) == ["a1", "b1", "c1", "a2"]


def test_among_lines_of_one_length_the_last_gives_way() -> None:
    lines: Lines[str] = Lines(3)
    for item in ("a1", "b1", "c1"):
        lines.put(item[0], item)
    assert lines.put("d", "d1") == "d1"
    assert drained(lines) == ["a1", "b1", "c1"]


# --- work under way ---------------------------------------------------------------------------


def shared(most: int, each: int, *items: str) -> SharedLines[str]:
    lines: SharedLines[str] = SharedLines(most, each)
    for item in items:
        lines.put(item[0], item)
    return lines


def taken(lines: SharedLines[str]) -> list[str]:
    items = []
    while (item := lines.take()) is not None:
        items.append(item)
    return items


def test_work_is_taken_in_turns_up_to_a_share() -> None:
    lines = shared(64, 2, *(f"a{number}" for number in range(200)), "b0", "b1", "b2", "c0")
    assert taken(lines) == ["a0", "b0", "c0", "a1", "b1"]
    assert (lines.count("a"), lines.count("b"), lines.count("d"), len(lines)) == (200, 3, 0, 204)
    lines.done("b")
    assert taken(lines) == ["b2"]
    lines.done("a")
    lines.done("a")
    assert taken(lines) == ["a2", "a3"]


def test_no_more_work_than_there_is_room_for() -> None:
    lines = shared(3, 2, "a0", "a1", "b0", "c0", "c1")
    assert taken(lines) == ["a0", "b0", "c0"]
    lines.done("a")
    assert taken(lines) == ["a1"]
    lines.clear()
    assert len(lines) == 3
    for key in "bca":
        lines.done(key)
    assert len(lines) == 0
    assert taken(lines) == []
