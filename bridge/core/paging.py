"""Paging of lists."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def page_of(found: Sequence[T], limit: int, key: Callable[[T], str]) -> tuple[list[T], str]:
    """The first page of `found`, and the key that the next page starts after ("" if this is the last).

    Ask the store for `limit + 1` items: only the extra one shows that there is a next page."""
    page = list(found[:limit])
    return page, key(page[-1]) if len(found) > limit else ""
