"""The schema, as the list of steps that lead to it.

A step is never edited once released: a change is a new step. `schema_version` says how many
have been taken.
"""

import sqlite3

from broker.domain.errors import StoreError

OFFSET_BITS = 32
OFFSETS = 1 << OFFSET_BITS
"""How many offsets a log has: the keys of log n lie between n * OFFSETS and (n + 1) * OFFSETS."""

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

# ids: where the message with an id stands. Ids grow, so each insertion is at the end.
#
# sent: what a sender has said in a conversation. A row for each client_msg_id, which makes it unique;
# and with '' one for the last message, so that it is found at once. Both in one tree, since a commit
# costs by the pages it changes, and these two are mostly the same page: an index of all messages by
# sender would add a page to each message.
#
# conversations: what a user has of a conversation. A private one has a row for each user from its first
# message on, so that they can be listed; a group's come when a user reads or marks something.
#
# amendments: which messages have changed an earlier one, that all which was ever said can be taken back.
#
# Users (as their inboxes) and conversations are numbers of `names`. A body begins with {"id":"<digits>":
# a cast to INTEGER takes the digits a text begins with.
_STEP_2 = """
CREATE TABLE ids (
    id       INTEGER PRIMARY KEY,
    message  INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO ids SELECT CAST(substr(body, 8, 20) AS INTEGER) AS id, key FROM messages ORDER BY id;

CREATE TABLE sent (
    sender         INTEGER NOT NULL,
    conversation   INTEGER NOT NULL,
    client_msg_id  TEXT NOT NULL,
    message        INTEGER NOT NULL,
    PRIMARY KEY (sender, conversation, client_msg_id)
) STRICT, WITHOUT ROWID;
INSERT INTO sent
    SELECT sender, key >> 32, client_msg_id, key FROM messages WHERE client_msg_id IS NOT NULL
    UNION ALL SELECT sender, key >> 32, '', max(key) FROM messages GROUP BY sender, key >> 32
    ORDER BY 1, 2, 3;
DROP INDEX messages_once;
ALTER TABLE messages DROP COLUMN client_msg_id;

CREATE TABLE amendments (
    target   INTEGER NOT NULL,
    message  INTEGER NOT NULL,
    PRIMARY KEY (target, message)
) STRICT, WITHOUT ROWID;

CREATE TABLE conversations (
    user           INTEGER NOT NULL,
    conversation   INTEGER NOT NULL,
    read_seq       INTEGER NOT NULL DEFAULT 0,
    delivered_seq  INTEGER NOT NULL DEFAULT 0,
    pinned         INTEGER NOT NULL DEFAULT 0,
    muted          INTEGER NOT NULL DEFAULT 0,
    unread         INTEGER NOT NULL DEFAULT 0,
    hidden_seq     INTEGER NOT NULL DEFAULT 0,
    changed_at     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user, conversation)
) STRICT, WITHOUT ROWID;
CREATE INDEX conversations_seen ON conversations (conversation, read_seq)
    WHERE read_seq > 0 OR delivered_seq > 0;
WITH
    private AS (SELECT id, substr(name, 3) AS pair FROM names WHERE name >= 'p:' AND name < 'p;'),
    users AS (
        SELECT id, substr(pair, 1, instr(pair, ':') - 1) AS user FROM private
        UNION SELECT id, substr(pair, instr(pair, ':') + 1) FROM private
    )
INSERT INTO conversations (user, conversation)
    SELECT names.id, users.id FROM users JOIN names ON names.name = 'users/' || users.user || '/inbox';
"""

# What a publication carries beside topic and payload, as msgpack; NULL for most.
_STEP_3 = """
ALTER TABLE messages ADD COLUMN properties BLOB;
ALTER TABLE retained ADD COLUMN properties BLOB;
"""

# Events of users, with keys like those of entries. They are few, and the oldest of a log go.
_STEP_4 = """
CREATE TABLE events (
    key   INTEGER PRIMARY KEY,
    body  BLOB NOT NULL
) STRICT;
"""

STEPS = (_STEP_1, _STEP_2, _STEP_3, _STEP_4)


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
