"""Pages of listings."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def page_of(found: Sequence[T], limit: int, key: Callable[[T], str]) -> tuple[list[T], str]:
    """The first `limit` of what was found, and where the next page begins: "" if there is no more, for
    which at least one more than `limit` was looked for."""
    page = list(found[:limit])
    return page, key(page[-1]) if len(found) > limit else ""
