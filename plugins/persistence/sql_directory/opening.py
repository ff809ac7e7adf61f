"""Opens the database at a URL: a SQLite file, or a database on a server."""

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from broker.domain.errors import StoreError
from plugins.persistence.sql_directory.database import Database
from plugins.persistence.sql_directory.pool import Pool

_POSTGRES = ("postgresql", "postgres")
_SERVERS = ("mysql", "mariadb", *_POSTGRES)


async def open_database(url: str, pool: Pool) -> Database:
    """Open the database at an SQLAlchemy URL and bring its tables up to date.

    Raises:
        StoreError: the database cannot be opened, or a newer version of this program wrote it.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreError("directory: storage.directory_url is not a URL of a database") from error
    name = parsed.get_backend_name()
    if name == "sqlite":
        from plugins.persistence.sql_directory.file_database import open_file

        return open_file(parsed.set(drivername="sqlite"))
    if name not in _SERVERS:
        raise StoreError(f"directory: {name} is no database that it can use: mariadb, mysql or postgresql")
    return await _open_server(parsed, pool)


async def _open_server(url: URL, pool: Pool) -> Database:
    # The drivers and SQLAlchemy's asyncio cost memory, which a node with a file need not pay.
    from plugins.persistence.sql_directory.server_database import open_server

    ca = url.query.get("ssl_ca")
    if isinstance(ca, tuple):
        raise StoreError("directory: storage.directory_url has several ssl_ca")
    url = url.difference_update_query(["ssl_ca"])
    if url.get_backend_name() in _POSTGRES:
        from plugins.persistence.sql_directory.postgres import Postgres

        return await open_server(url, Postgres(ca), pool)
    from plugins.persistence.sql_directory.mariadb import MariaDb

    return await open_server(url, MariaDb(ca), pool)
