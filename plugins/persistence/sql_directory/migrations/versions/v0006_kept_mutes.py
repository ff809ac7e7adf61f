"""Adds the mutes of users who are no longer members, and whether they left by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # MySQL commits each of the statements: after an interruption, the first column may be there.
    there = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("departures")}
    added = (
        sa.Column("by_self", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("muted_until", sa.BigInteger, nullable=False, server_default="0"),
    )
    for column in added:
        if column.name not in there:
            op.add_column("departures", column)
