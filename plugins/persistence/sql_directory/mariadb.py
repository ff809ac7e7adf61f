"""MariaDB and MySQL, with aiomysql."""

import re
import ssl
from typing import Any

import pymysql
from sqlalchemy import Connection, func, select, text

from broker.domain.errors import StoreError
from plugins.persistence.sql_directory.pool import Pool

_LOCK_SECONDS = 300

# https://mariadb.com/kb/en/mariadb-error-code-reference/
_TOGETHER = frozenset((1020, 1205, 1213))
"""Record has changed since last read; waited too long for a row; deadlock."""
_PASSING = frozenset(
    (
        *(1040, 1203, 1226),  # too many connections
        *(1044, 1045, 1049, 1698),  # password, rights or database were taken away
        *(1021, 1114, 3, 28),  # the disk is full
        *(1053, 1077, 1079, 1080, 1152, 1159, 1161, 1184, 1927),  # it shuts down, or ended the connection
        *(1047, 1290, 1836, 1792),  # not part of the cluster's majority; read only
        *(1969, 3024, 4031),  # took too long
        *(2002, 2003, 2005, 2006, 2013, 2014),  # cannot be reached
    )
)

# Whatever the server is set to: what does not fit is an error, and no text is cut.
_MODE = "sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'"


class MariaDb:
    """See `Kind`."""

    errors: tuple[type[Exception], ...] = (pymysql.err.Error,)

    def __init__(self, ca: str | None = None) -> None:
        self.driver = "mysql+aiomysql"
        self._ca = ca

    def options(self, pool: Pool) -> dict[str, Any]:
        seconds = max(1, round(pool.timeout))
        # Who waits for a row gives up before the job does, and can be run again.
        settings = [f"innodb_lock_wait_timeout={max(1, seconds // 2)}"]
        if self.driver.startswith("mariadb"):
            # A node that hangs with rows locked must not hold up the others.
            settings += [f"max_statement_time={seconds}", f"idle_transaction_timeout={2 * seconds}"]
        return self._options(pool, settings)

    def migration_options(self, pool: Pool) -> dict[str, Any]:
        return self._options(pool, [])

    def _options(self, pool: Pool, settings: list[str]) -> dict[str, Any]:
        options: dict[str, Any] = {
            "connect_timeout": pool.connect_timeout,
            "charset": "utf8mb4",
            "init_command": f"SET SESSION {', '.join([_MODE, *settings])}",
        }
        if self._ca is not None:
            options["ssl"] = ssl.create_default_context(cafile=self._ca)
        return options

    def check(self, connection: Connection) -> None:
        """See `Kind`. Finds out which of the two it is, too: they have different collations."""
        mariadb = getattr(connection.dialect, "is_mariadb", False)
        self.driver = "mariadb+aiomysql" if mariadb else "mysql+aiomysql"
        collation = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
        known = text("SELECT COUNT(*) FROM information_schema.collations WHERE collation_name = :name")
        if not connection.scalar(known, {"name": collation}):
            raise StoreError(f"the server is too old: it does not know the collation {collation}")

    def lock(self, connection: Connection) -> None:
        name = func.concat("parley ", func.md5(func.database()))
        if connection.scalar(select(func.get_lock(name, _LOCK_SECONDS))) != 1:
            raise StoreError("another node has been migrating the database for minutes")

    def failed_together(self, error: BaseException) -> bool:
        return _code(error) in _TOGETHER

    def may_pass(self, error: BaseException) -> bool:
        return _code(error) in _PASSING or self.failed_together(error)

    def reason(self, error: BaseException) -> str:
        message = str(error.args[1] if len(error.args) > 1 else error)
        return re.sub(r"(entry|value:?) '.*?' for", r"\1 for", message, flags=re.DOTALL)


def _code(error: BaseException) -> int:
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0
