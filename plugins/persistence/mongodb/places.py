"""The keys of documents. Each is a string that two different things never share.

A place is a log and an offset of fixed width, so places sort as their offsets do. A key joins its parts by
"|", which is escaped in all parts but the last. A log as a field's name has no dot and no dollar.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

OFFSETS = 1 << 32
"""Offsets and seqs are below this."""

CHUNK = 100
"""How many keys one query asks for. It bounds what is in memory at a time; and a server may take longer than
in proportion for a longer `$in`."""

_ESCAPED_PART = str.maketrans({"%": "%25", "|": "%7C"})
_ESCAPED_FIELD = str.maketrans({"%": "%25", ".": "%2E", "$": "%24", "\0": "%00"})


def place(log: str, offset: int) -> str:
    """The key of an entry."""
    return f"{log}/{offset:010d}"


def split(where: str) -> tuple[str, int]:
    """The log and offset of a place."""
    log, _, digits = where.rpartition("/")
    return log, int(digits)


def key(*parts: str) -> str:
    """A key of several parts, such as a user and a conversation."""
    *owners, last = parts
    return "|".join([*(part.translate(_ESCAPED_PART) for part in owners), last])


def field_of(log: str) -> str:
    """A log's name as the name of a field."""
    return log.translate(_ESCAPED_FIELD)


def log_of(field: str) -> str:
    """The log of such a field."""
    for character, escaped in (("\0", "%00"), ("$", "%24"), (".", "%2E"), ("%", "%25")):
        field = field.replace(escaped, character)
    return field


def clamped(offset: int) -> int:
    """An offset that is asked for, which may be any number, as one between those of the first and last."""
    return max(0, min(offset, OFFSETS - 1))


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, at most `CHUNK` at a time."""
    for first in range(0, len(items), CHUNK):
        yield items[first : first + CHUNK]
