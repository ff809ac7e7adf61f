"""Brings the tables of a database up to date, when it is opened."""

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select, update
from sqlmodel import SQLModel

NEWEST = "0008"
"""The last migration in `migrations/versions`."""

_BEGUN = "0000"
"""The version of a new database until it has all its tables: MariaDB and MySQL commit each of them."""

VERSION = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
"""One row: the version of the tables."""


def migrate(connection: Connection) -> None:
    """Create the tables of a new database; run the migrations that an older one lacks. Goes on with what an
    earlier attempt has left. No other process may do it at the same time.

    Raises:
        StoreError: a newer version of this program wrote the database.
    """
    tables = inspect(connection).get_table_names()
    version = connection.scalar(select(VERSION)) if VERSION.name in tables else None
    if version == _BEGUN or (version is None and set(tables) <= {VERSION.name}):
        _create(connection, version)
    elif version != NEWEST:
        # Alembic is large, and most starts need no migration.
        from plugins.persistence.sql_directory.upgrade import upgrade

        upgrade(connection)


def _create(connection: Connection, version: str | None) -> None:
    VERSION.create(connection, checkfirst=True)
    if version is None:
        connection.execute(insert(VERSION).values(version_num=_BEGUN))
    for table in SQLModel.metadata.sorted_tables:
        table.create(connection, checkfirst=True)
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    connection.execute(update(VERSION).values(version_num=NEWEST))
