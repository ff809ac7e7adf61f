"""Changes of tables that may have been made by an attempt that was interrupted.

Only in MariaDB and MySQL is there something of such an attempt. In other databases a table that is there
already is an error, because it is somebody else's.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op


def _may_be_half_done() -> bool:
    return op.get_context().dialect.name in ("mysql", "mariadb")


def add_column(table: str, column: "sa.Column[Any]") -> None:
    """Add a column unless it is there."""
    if _may_be_half_done():
        there = {known["name"] for known in sa.inspect(op.get_bind()).get_columns(table)}
        if column.name in there:
            return
    op.add_column(table, column)


def create_table(name: str, *columns: "sa.Column[Any]", **options: Any) -> sa.Table:
    """Create a table with its indexes, or those of them that are missing."""
    if not _may_be_half_done() or not sa.inspect(op.get_bind()).has_table(name):
        return op.create_table(name, *columns, **options)
    table = sa.Table(name, sa.MetaData(), *columns, **options)
    for index in table.indexes:
        index.create(op.get_bind(), checkfirst=True)
    return table


def create_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Create an index unless it is there."""
    if _may_be_half_done():
        finish_index(name, table, columns)
    else:
        op.create_index(name, table, list(columns))


def finish_index(name: str, table: str, columns: Sequence[str]) -> None:
    """Create an index unless it is there, in whichever database."""
    if name not in {known["name"] for known in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, list(columns))
