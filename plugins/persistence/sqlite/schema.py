"""The schema, as the list of steps that lead to it.

A step is never edited once released: a change is a new step. `schema_version` says how many
have been taken.
"""

import sqlite3

from broker.domain.errors import StoreError

# messages.key and entries.key are (log << 32 | offset): an integer primary key keeps each
# insertion at the end of its log, and a read of a log is one range scan. A message lies in its
# conversation's log; an inbox entry refers to it. Names are interned once, so that the rows and
# the one unique index stay narrow.
_STEP_1 = """
CREATE TABLE names (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE messages (
    key            INTEGER PRIMARY KEY,
    sender         INTEGER NOT NULL,
    client_msg_id  TEXT,
    qos            INTEGER NOT NULL,
    body           BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX messages_once ON messages (sender, key >> 32, client_msg_id)
    WHERE client_msg_id IS NOT NULL;
CREATE TABLE entries (
    key      INTEGER PRIMARY KEY,
    message  INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id         INTEGER PRIMARY KEY,
    user       TEXT NOT NULL,
    client_id  TEXT NOT NULL,
    saved_at   INTEGER NOT NULL,
    filters    BLOB NOT NULL,
    inflight   BLOB NOT NULL,
    received   BLOB NOT NULL,
    UNIQUE (user, client_id)
) STRICT;
CREATE INDEX sessions_saved_at ON sessions (saved_at);
CREATE TABLE cursors (
    session  INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    log      TEXT NOT NULL,
    offset   INTEGER NOT NULL,
    PRIMARY KEY (session, log)
) STRICT, WITHOUT ROWID;
CREATE TABLE session_queue (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    session  INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    message  BLOB NOT NULL
) STRICT;
CREATE INDEX session_queue_session ON session_queue (session);
CREATE TABLE retained (
    topic    TEXT PRIMARY KEY,
    payload  BLOB NOT NULL,
    qos      INTEGER NOT NULL,
    live     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX retained_live ON retained (topic) WHERE live;
"""

STEPS = (_STEP_1,)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the newest schema, each step in a transaction of its own.

    Raises:
        StoreError: the file was written by a newer version.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL) STRICT")
    row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    version = row[0] or 0
    if version > len(STEPS):
        raise StoreError(
            f"the database has schema version {version}, this program knows {len(STEPS)}: use a newer one"
        )
    for number, step in enumerate(STEPS[version:], start=version + 1):
        # executescript() would commit by itself, so the transaction is part of the script.
        connection.executescript(
            f"BEGIN IMMEDIATE; {step} INSERT INTO schema_version VALUES ({number}); COMMIT;"
        )
