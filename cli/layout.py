"""The layout of tables, as lines of text. Widths are in columns of a terminal."""

from collections.abc import Container, Iterable, Sequence

_GAP = "  "
_LEAST_TEXT = 16
"""A column of text that is wrapped gets at least this width, or no table is made."""


def aligned(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """A table, as wide as it needs to be."""
    return _table(header, cells, _natural(header, cells))


def fitted(
    header: Sequence[str], cells: Sequence[Sequence[str]], text: Container[str], width: int
) -> list[str]:
    """A table of at most this width, in which cells of the columns `text` are wrapped. If the other
    columns leave too little room, each row becomes a block of lines."""
    widths = _fit(header, _natural(header, cells), text, width)
    if widths is not None:
        return _table(header, cells, widths)
    lines: list[str] = []
    label = max(map(len, header))
    for row in cells:
        lines += [""] if lines else []
        lines += record(zip(header, row, strict=True), label, width)
    return lines


def record(pairs: Iterable[tuple[str, str]], label: int, width: int | None) -> list[str]:
    """Names and values, one pair a line. `label`: the width of the longest name. With a `width`, longer
    values are wrapped."""
    lines = []
    for name, value in pairs:
        room = None if width is None else max(width - label - len(_GAP), 1)
        first, *more = [value] if room is None else wrapped(value, room)
        lines.append(f"{name:<{label}}{_GAP}{first}".rstrip())
        lines += [(" " * label + _GAP + each).rstrip() for each in more]
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """Text in lines of at most this width, broken at spaces, and within words that are too long."""
    from rich.cells import cell_len, chop_cells

    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if cell_len(longer) <= width:
            lines[-1] = longer
            continue
        pieces = chop_cells(word, width)
        lines += pieces if lines[-1] else []
        lines = lines if lines[-1] else pieces
    return lines


def _natural(header: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    """The widths of the columns if nothing is wrapped."""
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]


def _fit(header: Sequence[str], natural: list[int], text: Container[str], width: int) -> list[int] | None:
    """The widths of the columns in a table of at most `width`. None: it does not fit."""
    missing = sum(natural) + len(_GAP) * (len(header) - 1) - width
    widths = list(natural)
    # The widest column of text gives first, as far as the next one is wide.
    for _ in range(max(missing, 0)):
        given = [n for n, name in enumerate(header) if name in text and widths[n] > _LEAST_TEXT]
        if not given:
            return None
        widths[max(given, key=lambda n: widths[n])] -= 1
    return widths


def _table(header: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    from rich.cells import cell_len

    lines = []
    for row in (header, *cells):
        columns = [
            [cell] if cell_len(cell) <= width else wrapped(cell, width)
            for cell, width in zip(row, widths, strict=True)
        ]
        for n in range(max(map(len, columns))):
            parts = [column[n] if n < len(column) else "" for column in columns]
            padded = (
                part + " " * (width - cell_len(part)) for part, width in zip(parts, widths, strict=True)
            )
            lines.append(_GAP.join(padded).rstrip())
    return lines
