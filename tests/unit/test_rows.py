"""Rows that are inserted in few steps, on SQLite in memory."""

import sqlite3

import pytest

from plugins.persistence.sqlite.rows import insert

INSERT = "INSERT INTO pairs VALUES (?, ?)"
UPSERT = f"{INSERT} ON CONFLICT DO UPDATE SET value = max(value, excluded.value)"


@pytest.fixture
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE pairs (key INTEGER PRIMARY KEY, value)")
    return connection


def pairs(connection: sqlite3.Connection) -> list[tuple[int, int]]:
    return connection.execute("SELECT * FROM pairs ORDER BY key").fetchall()


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 79, 256, 343, 1000])
def test_all_rows_are_inserted(connection: sqlite3.Connection, count: int) -> None:
    rows = [(number, -number) for number in range(count)]
    insert(connection, INSERT, rows)
    assert pairs(connection) == rows


def test_a_step_has_many_rows(connection: sqlite3.Connection) -> None:
    steps: list[str] = []
    connection.set_trace_callback(steps.append)
    insert(connection, INSERT, [(number, 0) for number in range(1000)])
    assert len(steps) < 20
    connection.set_trace_callback(None)
    assert len(pairs(connection)) == 1000


def test_what_follows_the_values_is_kept(connection: sqlite3.Connection) -> None:
    insert(connection, UPSERT, [(number % 10, number) for number in range(100)])
    assert pairs(connection) == [(number, 90 + number) for number in range(10)]


def test_a_key_that_is_taken(connection: sqlite3.Connection) -> None:
    insert(connection, INSERT, [(50, 0)])
    with pytest.raises(sqlite3.IntegrityError):
        insert(connection, INSERT, [(number, 0) for number in range(100)])
