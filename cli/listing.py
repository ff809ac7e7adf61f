"""Listings: the options that all of them have, and how they are printed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, cast

import typer

from cli import output

if TYPE_CHECKING:
    from google.protobuf.message import Message

Limit = Annotated[
    int | None,
    typer.Option("-n", "--limit", min=1, metavar="COUNT", help="At most COUNT rows.", show_default=False),
]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        metavar="TEXT",
        help="Only rows with TEXT in them; COLUMN=PATTERN: only rows with that value, e.g. state=away, "
        "user=bob*. Repeatable: all must hold.",
        show_default=False,
    ),
]
Item = TypeVar("Item")
Row = Sequence[object]


class Columns(NamedTuple):
    """The columns of a listing. `text`: those whose cells may be wrapped."""

    header: tuple[str, ...]
    text: frozenset[str] = frozenset()


class Selection(NamedTuple):
    """The options of a listing, as given."""

    limit: int | None
    only: Sequence[str] | None
    as_json: bool


def columns(names: str, text: str = "") -> Columns:
    """Columns by their names, which are separated by commas."""
    return Columns(tuple(names.split(",")), frozenset(text.split(",")))


def selected(
    shown: Columns, items: Iterable[Item], row: Callable[[Item], Row], selection: Selection
) -> list[Item]:
    """The items that `--limit` and `--filter` select. No more of them are fetched than needed.

    Raises:
        typer.BadParameter: a filter names an unknown column.
    """
    tests = [_test(shown.header, each) for each in selection.only or ()]
    found = (item for item in items if all(test(row(item)) for test in tests))
    return list(islice(found, selection.limit))


def show(
    shown: Columns,
    items: Iterable[Item],
    row: Callable[[Item], Row],
    selection: Selection,
    encode: Callable[[Item], object] | None = None,
) -> None:
    """Print the selected items. `encode` makes an item JSON; without it, items are messages of protobuf."""
    found = selected(shown, items, row, selection)
    if not selection.as_json:
        output.table(shown.header, map(row, found), shown.text)
    elif encode is not None:
        output.json_array(map(encode, found))
    else:
        from cli.documents import encoded

        output.json_array(encoded(cast("Message", item)) for item in found)


def each(pages: Iterable[Any], field: str) -> Iterator[Any]:
    """The items in a field of pages, which are messages of protobuf."""
    for page in pages:
        yield from getattr(page, field)


def _test(header: Sequence[str], wanted: str) -> Callable[[Row], bool]:
    """Whether a row has what a filter wants."""
    name, separator, pattern = wanted.casefold().partition("=")
    if not separator:
        return lambda row: any(name in str(cell).casefold() for cell in row)
    names = [column.casefold().replace(" ", "-") for column in header]
    if name not in names:
        raise typer.BadParameter(f"--filter {wanted}: no column {name!r}; there are {', '.join(names)}")
    place = names.index(name)
    return lambda row: fnmatchcase(str(row[place]).casefold(), pattern)
