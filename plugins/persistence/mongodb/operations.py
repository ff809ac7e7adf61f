"""Writes of documents, in no driver's words. `where` is a query, `change` MongoDB's update operators."""

from collections.abc import Mapping
from typing import Any

import msgspec

Document = dict[str, Any]


class Insert(msgspec.Struct, frozen=True, gc=False):
    """A new document. Its `_id` must not be taken."""

    document: Document


class Update(msgspec.Struct, frozen=True, gc=False):
    """Change a document; with `many`, all that match; with `upsert`, make one if there is none."""

    where: Mapping[str, Any]
    change: Mapping[str, Any]
    upsert: bool = False
    many: bool = False


class Put(msgspec.Struct, frozen=True, gc=False):
    """A document in place of the one with the same `_id`, if there is one."""

    document: Document


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Delete all documents that match."""

    where: Mapping[str, Any]


Operation = Insert | Update | Put | Delete
