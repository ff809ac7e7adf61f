"""The directory in an SQL database: a SQLite file by default, or MariaDB, MySQL or PostgreSQL."""

from plugins.persistence.sql_directory.directory import SqlDirectory, open_directory
from plugins.persistence.sql_directory.pool import Pool

__all__ = ["Pool", "SqlDirectory", "open_directory"]
