"""Printing: lines, aligned tables and JSON."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

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


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in aligned columns. On a terminal they are fitted to its width; into a pipe, cells are
    never cut or wrapped."""
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _fitted(header, cells)
        return
    from rich.cells import cell_len

    columns = list(zip(header, *cells, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    for row in (header, *cells):
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        line("  ".join(padded).rstrip())


def _fitted(header: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    fitted = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        fitted.add_column(name, overflow="fold")
    for row in cells:
        fitted.add_row(*map(Text, row))
    Console().print(fitted)


def fields(values: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    pairs = [(name, printable(str(value))) for name, value in values]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        line(f"{name:<{width}}  {value}".rstrip())
