"""The SQL directory's tables on a server: from older versions, with migrations that are interrupted."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, LargeBinary, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlmodel import SQLModel

from broker.domain.errors import StoreError
from broker.ports import Account, IdTwin, Membership
from plugins.persistence.sql_directory import migrations, open_directory
from plugins.persistence.sql_directory.migrate import NEWEST
from tests.ports.conftest import SERVERS
from tests.ports.directories import Clock, add, hash_password, is_mariadb, new_group, opened, run_sql

ROOT = Path(__file__).parents[2]
REVISIONS = ["0001", "0002", "0003", "0004", "0005"]


@pytest.fixture(params=list(SERVERS))
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The URL of an empty database."""
    async with SERVERS[request.param].new_database() as url:
        yield url


async def migrate_to(url: str, revision: str) -> None:
    """The tables of an earlier version, with some rows."""

    def upgrade(connection: Connection) -> None:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        command.upgrade(config, "0001")
        connection.execute(text(f"INSERT INTO users {_USERS}"))
        connection.execute(text(f"INSERT INTO {groups} {_GROUPS}"))
        connection.execute(text(f"INSERT INTO memberships {_MEMBERSHIPS}"))
        command.upgrade(config, revision)

    groups = "`groups`" if is_mariadb(url) else "groups"
    await on_server(url, upgrade)


_USERS = "VALUES ('alice', 'hash', 'admin', FALSE, 1234, 7), ('ALICE', NULL, 'user', TRUE, 1234, 0)"
_GROUPS = "VALUES ('team', 'Team', 'alice', 1234)"
_MEMBERSHIPS = "VALUES ('team', 'alice', 'owner', 3, 0), ('team', 'ALICE', 'member', 5, 99)"


async def on_server(url: str, job: Callable[[Connection], Any]) -> Any:
    driver = "mariadb+aiomysql" if is_mariadb(url) else "postgresql+asyncpg"
    engine = create_async_engine(f"{driver}:{url.partition(':')[2]}")
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(job)
    finally:
        await engine.dispose()


async def check_tables(url: str) -> None:
    def differs(_context: object, _column: object, _made: object, _there: object, wanted: object) -> Any:
        # MariaDB makes a MEDIUMBLOB of a BLOB of this length.
        return False if isinstance(wanted, LargeBinary) else None

    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": differs})
        return list(compare_metadata(context, SQLModel.metadata))

    assert await on_server(url, differences) == []
    assert await run_sql(url, "SELECT version_num FROM alembic_version") == [(NEWEST,)]
    if is_mariadb(url):
        collations = await run_sql(
            url,
            "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = DATABASE() "
            "AND collation_name IS NOT NULL AND table_name != 'alembic_version'",
        )
        assert collations == [("utf8mb4_nopad_bin",)]


async def check_rows(url: str) -> None:
    async with opened(url) as directory:
        assert await directory.accounts("", 10) == [
            Account("ALICE", "user", True, None, 1234, 0, 0),
            Account("alice", "admin", False, "hash", 1234, 7, 0),
        ]
        group = await directory.group("team")
        assert group is not None
        assert (group.members, group.floor) == (2, 3)
        assert await directory.members("team", "", 10) == [
            Membership("team", "ALICE", "member", 5, 99),
            Membership("team", "alice", "owner", 3, 0),
        ]
        assert await directory.id_twins(10) == ([IdTwin("user", "alice", "ALICE")], 1)


def open_and_die(url: str) -> int:
    """Returns how often it was opened."""
    # PostgreSQL rolls everything back, wherever it is: a few places will do.
    skipped = "0" if is_mariadb(url) else "15"
    dying = [sys.executable, "-m", "tests.ports.dying_migration", url, skipped]
    done = subprocess.run(dying, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_tables_of_each_version(url: str, revision: str) -> None:
    await migrate_to(url, revision)
    await check_rows(url)
    await check_tables(url)


async def test_new_tables_that_are_interrupted_at_each_statement(url: str) -> None:
    assert await asyncio.to_thread(open_and_die, url) > (20 if is_mariadb(url) else 1)
    await check_tables(url)
    async with opened(url) as directory:
        await add(directory, "alice")
        await directory.write_group(new_group("alice"), [])


async def test_migrations_that_are_interrupted_at_each_statement(url: str) -> None:
    await migrate_to(url, "0001")
    assert await asyncio.to_thread(open_and_die, url) > (40 if is_mariadb(url) else 3)
    await check_rows(url)
    await check_tables(url)


@pytest.mark.parametrize("revision", [None, "0002"])
async def test_nodes_that_start_at_once_migrate_once(url: str, revision: str | None) -> None:
    if revision is not None:
        await migrate_to(url, revision)
    directories = await asyncio.gather(
        *(open_directory(url, hash_password, Clock().now_ms) for _ in range(5))
    )
    for directory in directories:
        await directory.close()
    await check_tables(url)


async def test_tables_of_a_newer_version_are_refused(url: str) -> None:
    async with opened(url):
        pass
    await run_sql(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreError, match=f"has version 9999, this program knows {NEWEST}: use a newer one"):
        await open_directory(url, hash_password, Clock().now_ms)
