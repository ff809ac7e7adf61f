"""What commands print: lines, aligned tables, JSON."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from cli.errors import CommandError, OutputClosedError
from cli.parsing import FOR_EVER

_JOINERS = "\u200c\u200d"
"""Not printable by themselves, but words and emoji are made with them."""


def line(text: str, flush: bool = False) -> None:
    """Print a line on standard output.

    Raises:
        OutputClosedError: nobody reads it any more.
        CommandError: it cannot be written.
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
    """`text` with control characters escaped: what users wrote must not drive a terminal."""
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
    """A number of things: "1 member", "2 members"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def until(ms: int) -> str:
    """When something ends that may have no end."""
    return "for ever" if ms >= FOR_EVER else f"until {local_time(ms)}"


def raw_json(document: bytes) -> str:
    """A JSON document as one line of text; on a terminal, harmless."""
    # Line breaks can only stand between the tokens of JSON, never inside a string.
    text = document.replace(b"\n", b" ").replace(b"\r", b" ").decode()
    if text.isprintable() or not sys.stdout.isatty():
        return text
    return "".join(char if char.isprintable() or char in _JOINERS else f"\\u{ord(char):04x}" for char in text)


def json_value(value: Any) -> None:
    """Print a value as one line of JSON; bytes are JSON already."""
    line(raw_json(_encoded(value)))


def json_array(items: Iterable[Any]) -> None:
    """Print a JSON array, one item a line; an item that is bytes is JSON already."""
    lines = [raw_json(_encoded(item)) for item in items]
    line("[\n" + ",\n".join(lines) + "\n]" if lines else "[]")


def _encoded(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in aligned columns: whole and plain into a pipe, fitted to a terminal."""
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
    """Print names and values, one a line."""
    pairs = [(name, printable(str(value))) for name, value in values]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        line(f"{name:<{width}}  {value}".rstrip())
