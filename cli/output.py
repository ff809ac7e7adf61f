"""Printing: lines, aligned tables and JSON."""

import json
import shutil
import sys
import time
from collections.abc import Container, Iterable, Sequence
from typing import Any

from cli import layout, pager
from cli.errors import CommandError, OutputClosedError
from cli.parsing import FOR_EVER

_JOINERS = "\u200c\u200d"
"""Zero-width joiners. Not printable by themselves, but some scripts and emoji need them."""


def line(text: str, flush: bool = False) -> None:
    """Print a line on standard output.

    Raises:
        OutputClosedError: the reader of the output has closed it.
        CommandError: the output cannot be written.
    """
    try:
        sys.stdout.write(text + "\n")
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosedError from None
    except OSError as error:
        raise CommandError(f"cannot write the output: {error.strerror}") from None


def printable(text: str) -> str:
    """`text` with control characters escaped, so that text written by users cannot control the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in _JOINERS else char.encode("unicode_escape").decode()
        for char in text
    )


def local_time(ms: int) -> str:
    """Unix milliseconds as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 member", "2 members"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def until(ms: int) -> str:
    """An end in words: "until" a time (Unix ms), or "for ever"."""
    return "for ever" if ms >= FOR_EVER else f"until {local_time(ms)}"


def raw_json(document: bytes) -> str:
    """A JSON document as one line of text. On a terminal, control characters are escaped."""
    # JSON strings hold no raw line breaks, so replacing them changes no value.
    text = document.replace(b"\n", b" ").replace(b"\r", b" ").decode()
    if text.isprintable() or not sys.stdout.isatty():
        return text
    return "".join(char if char.isprintable() or char in _JOINERS else f"\\u{ord(char):04x}" for char in text)


def json_value(value: Any) -> None:
    """Print a value as one line of JSON. Bytes must be JSON already."""
    line(raw_json(_encoded(value)))


def json_array(items: Iterable[Any]) -> None:
    """Print a JSON array, one item a line. Items that are bytes must be JSON already."""
    lines = [raw_json(_encoded(item)) for item in items]
    line("[\n" + ",\n".join(lines) + "\n]" if lines else "[]")


def _encoded(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")


def table(header: Sequence[str], rows: Iterable[Sequence[object]], text: Container[str] = ()) -> None:
    """Print rows in aligned columns, with `text` naming the columns whose cells may be wrapped.

    On a terminal no line is wider than it and no cell is cut: what does not fit as a table is printed as
    one block of lines for each row. What does not fit its height goes to the pager. Into a pipe, each row
    is one line."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        lines = layout.aligned(header, cells)
    else:
        lines = layout.fitted(header, cells, text, shutil.get_terminal_size().columns)
    print_all(lines)


def print_all(lines: Sequence[str]) -> None:
    """Print lines: by the pager, if they are for a terminal and more than it has."""
    if not (pager.is_wanted(len(lines)) and pager.show("\n".join(lines) + "\n")):
        for each in lines:
            line(each)


def fields(values: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line. On a terminal, long values are wrapped."""
    pairs = [(name, printable(str(value))) for name, value in values]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for each in layout.record(pairs, max(len(name) for name, _ in pairs), width):
        line(each)
