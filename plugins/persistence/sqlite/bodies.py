"""The column `body` of messages: bodies as they are, or compressed.

A compressed body begins as the body does, so that queries find the id in it.
"""

import sqlite3
from typing import Any

from plugins.persistence.compression import ALGORITHMS, Compression, unpack

BODY = "iif(codec = 0, body, unpacked(body, codec))"
"""The body, in a query of `messages`. NULL if it is compressed and damaged."""

_PLAIN = 27
"""Bytes that are never compressed: {"id":"<up to 19 digits>", a quote more."""


def to_columns(body: bytes, compression: Compression | None) -> tuple[bytes, int]:
    """The columns `body` and `codec`."""
    if compression is None:
        return body, 0
    stored, algorithm = compression.pack(body, _PLAIN)
    return stored, ALGORITHMS.index(algorithm) + 1 if algorithm else 0


def packed(row: tuple[Any, ...], compression: Compression) -> tuple[Any, ...]:
    """A row of messages with its body compressed, if it is large enough, and `codec` behind it. The body is
    its fourth column."""
    body, codec = to_columns(row[3], compression)
    return (*row[:3], body, *row[4:], codec)


def add_function(connection: sqlite3.Connection) -> None:
    """Make `BODY` known to a connection."""
    connection.create_function("unpacked", 2, _unpacked, deterministic=True)


def _unpacked(stored: object, codec: object) -> bytes | None:
    if not isinstance(stored, bytes) or not isinstance(codec, int) or not 0 < codec <= len(ALGORITHMS):
        return None  # damaged
    try:
        return unpack(stored, ALGORITHMS[codec - 1], _PLAIN)
    except ValueError:
        return None
