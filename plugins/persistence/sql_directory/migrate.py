"""Brings the tables of a database up to date, when it is opened."""

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select
from sqlmodel import SQLModel

NEWEST = "0006"
"""The last migration in `migrations/versions`."""

_VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def migrate(connection: Connection) -> None:
    """Create the tables of a new database; run the migrations that an older one lacks.

    Raises:
        StoreError: a newer version of this program wrote the database.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        SQLModel.metadata.create_all(connection)
        _VERSION.create(connection)
        connection.execute(insert(_VERSION).values(version_num=NEWEST))
    elif _VERSION.name not in tables or connection.scalar(select(_VERSION)) != NEWEST:
        # Alembic is large, and most starts need no migration.
        from plugins.persistence.sql_directory.upgrade import upgrade

        upgrade(connection)
