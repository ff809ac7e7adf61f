"""Queues that are served in turns."""

from broker.domain.lines import Lines


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
