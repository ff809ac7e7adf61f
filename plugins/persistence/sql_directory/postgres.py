"""PostgreSQL, with asyncpg."""

import ssl
from typing import Any

import asyncpg
from sqlalchemy import Connection, text

from broker.domain.errors import StoreError
from plugins.persistence.sql_directory.pool import Pool

_LOCK = 0x7061726C6579
"""The key of the lock for migrations: "parley". Advisory locks belong to a database."""

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_TOGETHER = frozenset(("40001", "40P01", "55P03"))
"""Serialization failure, deadlock, waited too long for a row."""
_PASSING = ("08", "25006", "28", "3D", "40", "53", "55P03", "57", "58")
"""Connection, read only, password, database, together, resources, ended by the operator, disk."""


class Postgres:
    """See `Kind`."""

    driver = "postgresql+asyncpg"
    errors: tuple[type[Exception], ...] = (asyncpg.PostgresError, asyncpg.InterfaceError)

    def __init__(self, ca: str | None = None) -> None:
        self._ca = ca

    def options(self, pool: Pool) -> dict[str, Any]:
        milliseconds = round(pool.timeout * 1000)
        settings = {
            # Who waits for a row gives up before the job does, and can be run again.
            "lock_timeout": str(milliseconds // 2),
            "statement_timeout": str(milliseconds),
            # A node that hangs with rows locked must not hold up the others.
            "idle_in_transaction_session_timeout": str(2 * milliseconds),
        }
        return {**self.migration_options(pool), "server_settings": settings}

    def migration_options(self, pool: Pool) -> dict[str, Any]:
        options: dict[str, Any] = {"timeout": pool.connect_timeout}
        if self._ca is not None:
            options["ssl"] = ssl.create_default_context(cafile=self._ca)
        return options

    def check(self, connection: Connection) -> None:
        encoding = connection.scalar(text("SHOW server_encoding"))
        if encoding != "UTF8":
            raise StoreError(f"the database has the encoding {encoding}: create it with ENCODING 'UTF8'")

    def lock(self, connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})

    def failed_together(self, error: BaseException) -> bool:
        return _state(error) in _TOGETHER

    def may_pass(self, error: BaseException) -> bool:
        raised = _raised(error)
        gone = isinstance(raised, asyncpg.InterfaceError) and not isinstance(raised, ValueError)
        return gone or _state(error).startswith(_PASSING)

    def reason(self, error: BaseException) -> str:
        raised = _raised(error)
        if isinstance(raised, ValueError) or type(raised) is asyncpg.DataError:
            return "a value does not fit its column"  # the driver's message has the value
        return str(raised.args[0]) if raised.args else type(raised).__name__


def _raised(error: BaseException) -> BaseException:
    """SQLAlchemy's adapter wraps the driver's error, and puts the name of its class into the message."""
    cause = error.__cause__
    return cause if isinstance(cause, Postgres.errors) else error


def _state(error: BaseException) -> str:
    return getattr(_raised(error), "sqlstate", None) or ""
