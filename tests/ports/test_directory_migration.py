"""The SQL directory's tables: over restarts, from older versions, and in other databases."""

import logging
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from msgspec.structs import replace
from sqlalchemy import BigInteger, Engine, create_engine, event
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.pool import Pool
from sqlalchemy.schema import CreateTable
from sqlmodel import SQLModel

from broker.domain.errors import StoreError
from broker.ports import Account, Ban, Group, GroupWrite, JoinRequest, Membership, Profile
from plugins.persistence.sql_directory import migrations, open_directory
from plugins.persistence.sql_directory.migrate import NEWEST
from plugins.persistence.sql_directory.models import GROUPS, NOTICES, USERS
from tests.ports.directories import (
    NOW,
    Clock,
    add,
    contact,
    hash_password,
    member,
    new_group,
    notice,
    opened,
    url,
)

_RELEASED = Path(__file__).parents[1] / "integration" / "data_0_1_0" / "directory.sql"

_OLD = """
CREATE TABLE users (
    user_id VARCHAR(64) NOT NULL,
    password_hash VARCHAR,
    role VARCHAR NOT NULL,
    disabled BOOLEAN NOT NULL,
    created_at INTEGER NOT NULL,
    inbox_floor INTEGER NOT NULL,
    PRIMARY KEY (user_id)
);
CREATE TABLE groups (
    group_id VARCHAR(64) NOT NULL,
    name VARCHAR NOT NULL,
    owner VARCHAR(64) NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (group_id)
);
CREATE TABLE memberships (
    group_id VARCHAR(64) NOT NULL,
    user_id VARCHAR(64) NOT NULL,
    role VARCHAR NOT NULL,
    joined_seq INTEGER NOT NULL,
    muted_until INTEGER NOT NULL,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX ix_memberships_user_id ON memberships (user_id);
INSERT INTO users VALUES ('alice', 'hash', 'admin', 0, 1764000000999, 7), ('bob', NULL, 'user', 1, 1234, 0);
INSERT INTO groups VALUES ('team', 'Team', 'alice', 1234);
INSERT INTO memberships VALUES ('team', 'alice', 'owner', 0, 0), ('team', 'bob', 'member', 5, 99);
"""


def run_script(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def schema(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()
    connection.close()
    return [row[0] for row in rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a directory with 100%.db"


async def test_everything_is_there_after_a_restart(path: Path) -> None:
    async with opened(path) as first:
        await add(first, "alice", "bob")
        await first.write_profile(Profile("alice", "Alice"))
        await first.write_contacts([contact("alice", "bob")], [notice("n-1")])
        await first.write_group(new_group("alice", "bob"), [notice("n-2")])
        group = await first.group("team")
        assert group is not None
        write = GroupWrite(Group("team", "Team", "alice", NOW, 0, version=2), ban=[Ban("team", "bob")])
        await first.write_group(write, [])
        await first.revoke_token("alice", "t-1", NOW)
        accounts = await first.accounts("", 10)
    before = schema(path)
    async with opened(path) as second:
        assert await second.accounts("", 10) == accounts
        assert await second.profiles(["alice"]) == {"alice": Profile("alice", "Alice")}
        assert await second.contacts("alice", "", 10) == [contact("alice", "bob")]
        assert await second.notices(10) == [notice("n-1"), notice("n-2")]
        assert await second.members("team", "", 10) == [member("alice", "owner"), member("bob")]
        assert await second.ban("team", "bob") == Ban("team", "bob")
        assert await second.is_revoked("t-1")
        await second.drop_notices(["n-1", "n-2"])
    assert schema(path) == before
    async with opened(path) as third:
        assert await third.notices(10) == []


async def test_a_database_of_the_version_before_is_migrated(path: Path) -> None:
    run_script(path, _OLD)
    async with opened(path) as directory:
        assert await directory.accounts("", 10) == [
            Account("alice", "admin", False, "hash", NOW, 7, 0),
            Account("bob", "user", True, None, 1234, 0, 0),
        ]
        assert await directory.profiles(["bob"]) == {"bob": Profile("bob")}
        assert await directory.groups("", 10) == [Group("team", "Team", "alice", 1234, 2)]
        joined = Membership("team", "bob", "member", 5, 99)
        assert await directory.memberships("bob") == [joined]
        ask = JoinRequest("team", "bob", "", 0)
        write = GroupWrite(Group("team", "Team", "alice", 1234, 2, version=2), ask=[ask])
        await directory.write_group(write, [notice("n-1")])
    async with opened(path) as again:
        assert await again.join_requests("team", "", 10) == [ask]


async def test_a_database_of_0_1_0_is_migrated(path: Path) -> None:
    run_script(path, _RELEASED.read_text(encoding="utf-8"))
    run_script(
        path,
        "INSERT INTO contacts VALUES ('alice', 'bob', 'sent', 0, '', 'hi', 1, 1);"
        "INSERT INTO contacts VALUES ('bob', 'alice', 'received', 0, '', 'hi', 1, 1);"
        "UPDATE users SET who_may_message = 'contacts' WHERE user_id = 'bob';",
    )
    async with opened(path) as directory:
        (profile,) = (await directory.profiles(["bob"])).values()
        assert (profile.who_may_message, profile.who_may_add_me) == ("contacts", "everyone")
        # A request of then has its entry already.
        assert [contact.asked for contact in await directory.contacts("alice", "", 9)] == [True]
        assert [contact.asked for contact in await directory.contacts("bob", "", 9)] == [False]
        assert await directory.who_left("team", ["alice", "bob"]) == set()
        group = await directory.group("team")
        assert group is not None
        left = GroupWrite(replace(group, version=group.version + 1), drop=["bob"], left=["bob"])
        await directory.write_group(left, [])
        assert await directory.who_left("team", ["alice", "bob"]) == {"bob"}


@pytest.mark.parametrize("added", ["", "ALTER TABLE departures ADD by_self BOOLEAN NOT NULL DEFAULT 1;"])
async def test_who_left_before_mutes_were_kept_has_left_by_themselves(path: Path, added: str) -> None:
    """MySQL may have added one of the columns when the migration was interrupted."""
    async with opened(path) as directory:
        await add(directory, "alice", "bob")
        await directory.write_group(new_group("alice"), [])
    run_script(
        path,
        "ALTER TABLE departures DROP COLUMN by_self; ALTER TABLE departures DROP COLUMN muted_until;"
        "INSERT INTO departures VALUES ('team', 'bob'); DROP TABLE changes;"
        "UPDATE alembic_version SET version_num = '0005';" + added,
    )
    async with opened(path) as directory:
        assert await directory.who_left("team", ["alice", "bob"]) == {"bob"}
        assert await directory.kept_mutes("team", ["alice", "bob"]) == {}


async def test_a_first_start_that_was_interrupted_is_finished(path: Path) -> None:
    run_script(path, _OLD[: _OLD.index("CREATE TABLE groups")])
    async with opened(path) as directory:
        await add(directory, "alice")
        await directory.write_group(new_group("alice"), [])


async def test_a_step_that_fails_leaves_the_version_before(path: Path) -> None:
    run_script(path, _OLD + "CREATE TABLE notices (stray INTEGER);")
    before = schema(path)
    with pytest.raises(StoreError, match="notices already exists"):
        await open_directory(url(path), hash_password, Clock().now_ms)
    assert schema(path) == before
    run_script(path, "DROP TABLE notices")
    async with opened(path) as directory:
        assert len(await directory.members("team", "", 10)) == 2


async def test_a_database_of_a_newer_version_is_refused(path: Path) -> None:
    async with opened(path):
        pass
    run_script(path, "UPDATE alembic_version SET version_num = '9999'")
    before = schema(path)
    with pytest.raises(StoreError, match=f"has version 9999, this program knows {NEWEST}: use a newer one"):
        await open_directory(url(path), hash_password, Clock().now_ms)
    assert schema(path) == before


def _differs(_context: object, _column: object, _made: object, _there: object, wanted: object) -> bool | None:
    """Whether the type of a column is another; SQLite has one size of integers only."""
    return False if isinstance(wanted, BigInteger) else None


@pytest.mark.parametrize("script", ["", _OLD], ids=["new", "old"])
async def test_the_steps_lead_to_the_tables(path: Path, script: str) -> None:
    run_script(path, script)
    async with opened(path):
        pass
    engine = create_engine(url(path))
    with engine.connect() as connection:
        # The released text has no bound, of which SQLite takes no notice.
        context = MigrationContext.configure(connection, opts={"compare_type": not script and _differs})
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


async def test_opening_says_nothing_and_leaves_logging_as_it_is(
    path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = list(logging.getLogger().handlers)
    with caplog.at_level(logging.INFO):
        directory = await open_directory(url(path), hash_password, Clock().now_ms)
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    await directory.close()


async def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "directory.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="not a database"):
        await open_directory(url(tmp_path / "directory.db"), hash_password, Clock().now_ms)
    with pytest.raises(StoreError, match="unable to open"):
        await open_directory(url(tmp_path / "absent" / "directory.db"), hash_password, Clock().now_ms)

    for wrong in ("directory.db", "parley://host/directory"):
        with pytest.raises(StoreError, match=r"^directory: "):
            await open_directory(wrong, hash_password, Clock().now_ms)


async def test_every_commit_is_synced(path: Path) -> None:
    said: list[Any] = []

    def listen(connection: Any, _record: object, _proxy: object) -> None:
        for pragma in ("journal_mode", "synchronous"):
            said.extend(connection.execute(f"PRAGMA {pragma}").fetchone())

    async with opened(path) as directory:
        event.listen(Pool, "checkout", listen)
        try:
            await add(directory, "alice")
        finally:
            event.remove(Pool, "checkout", listen)
    assert said == ["wal", 2]  # 2 is FULL


async def test_reads_find_what_they_need_by_an_index(path: Path) -> None:
    statements: list[tuple[str, Any]] = []

    def listen(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        statements.append((statement, values))

    async with opened(path) as directory:
        await add(directory, "alice")
        event.listen(Engine, "before_cursor_execute", listen)
        try:
            await directory.account("alice")
            await directory.accounts("", 10)
            await directory.profiles(["alice", "bob"])
            await directory.is_revoked("t-1")
            await directory.contacts_between([("alice", "bob"), ("bob", "alice"), ("carol", "alice")])
            many = [("alice", f"user{n}") for n in range(100)]
            await directory.contacts_between([*many, *((peer, user) for user, peer in many)])
            await directory.contacts("alice", "", 10)
            await directory.who_left("team", ["alice", "bob"])
            await directory.kept_mutes("team", ["alice", "bob"])
            await directory.memberships("alice")
            await directory.group("team")
            await directory.groups("", 10)
            await directory.groups_by_id(["team", "choir"])
            await directory.members("team", "", 10)
            await directory.members_by_id("team", ["alice", "bob"])
            await directory.bans("team", "", 10)
            await directory.join_requests("team", "", 10)
            await directory.remove_account("alice")
        finally:
            event.remove(Engine, "before_cursor_execute", listen)
        connection = sqlite3.connect(path)
        for statement, values in statements:
            if not statement.startswith("BEGIN"):
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
                assert not [step[3] for step in plan if step[3].startswith("SCAN")], statement
        connection.close()


def test_the_tables_can_be_made_in_other_databases() -> None:
    for dialect in (postgresql.dialect(), mysql.dialect()):
        for table in SQLModel.metadata.sorted_tables:
            str(CreateTable(table).compile(dialect=dialect))
    assert "BLOB(16777215)" in str(CreateTable(NOTICES).compile(dialect=mysql.dialect()))
    assert "utf8mb4_0900_bin" in str(CreateTable(USERS).compile(dialect=mysql.dialect()))
    assert "BIGINT" in str(CreateTable(GROUPS).compile(dialect=postgresql.dialect()))


def test_new_databases_are_of_the_last_step() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert scripts.get_current_head() == NEWEST
