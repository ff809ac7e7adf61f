"""The schema as a list of migration steps.

A released step is never edited: a change is a new step. The table `schema_version` holds the number of
steps the database has taken.
"""

import sqlite3
from collections.abc import Callable

from broker.domain.errors import StoreError
from plugins.persistence.sqlite.numbering import number_entries

OFFSET_BITS = 32
OFFSETS = 1 << OFFSET_BITS
"""The number of offsets of a log: the keys of log n lie between n * OFFSETS and (n + 1) * OFFSETS."""

# messages.key and entries.key are (log << 32 | offset). With this integer primary key an insertion goes
# to the end of its log, and reading a log is one range scan. A message is stored in the log of its
# conversation; an inbox entry refers to it. Interned names keep the rows and the one unique index narrow.
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

# ids: message id -> key. Ids grow, so each insertion goes to the end.
#
# sent: the messages of a sender in a conversation. One row per client_msg_id, which makes it unique, and
# one row with '' for the last message, which is thus found at once. Both are in one table because a commit
# costs by the pages it changes, and the two rows are mostly on the same page. An index of all messages by
# sender would change one more page per message.
#
# conversations: a user's watermarks and marks in a conversation. A private conversation has a row for each
# of its two users from the first message on, so that it can be listed. A group has a row for a user once
# they read or mark something.
#
# amendments: which messages have amended an earlier one, so that a recall can also empty the earlier edits.
#
# Users (as their inboxes) and conversations are numbers of `names`. A body begins with {"id":"<digits>", and
# a cast to INTEGER takes the leading digits of a text.
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

# The properties of a publication as msgpack; NULL for most.
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

# n: how many messages there are in the conversation up to the entry. last: the seq of the last of them.
# Unread messages and the last message are found by them at once, without a row for each conversation that
# every message would change. They are filled in by the step that follows.
_STEP_5 = """
ALTER TABLE messages ADD COLUMN n INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN last INTEGER NOT NULL DEFAULT 0;
"""

Step = str | Callable[[sqlite3.Connection], None]
"""A script that is one transaction; or a function, for changes too large for one. A function may be called
again after a node was killed in the middle of it."""

# The packet ids of sessions as msgpack; NULL for sessions that were last saved by an earlier version.
_STEP_7 = """
ALTER TABLE sessions ADD COLUMN packet_ids BLOB;
"""

# The identity of the store: one row, written by the node that first starts with it.
_STEP_8 = """
CREATE TABLE store_identity (
    id          TEXT NOT NULL,
    generation  INTEGER NOT NULL
) STRICT;
"""

# floor_seq: messages up to it were said to an earlier account with the user's id. NULL for conversations
# that are older than this column: for them the time of the account decides.
_STEP_9 = """
ALTER TABLE conversations ADD COLUMN floor_seq INTEGER DEFAULT 0;
UPDATE conversations SET floor_seq = NULL;
"""

# Who has published a retained message; empty for those that are older than this column.
_STEP_10 = """
ALTER TABLE retained ADD COLUMN owner TEXT NOT NULL DEFAULT '';
"""

# Which messages mention a user; user 0 (a name has a number from 1 on) stands for everybody. Only messages
# with mentions have rows, so an ordinary message costs no write. A recalled message has none. The bodies of
# messages are JSON as BLOB, which SQLite's functions read as text.
MENTIONS = """
CREATE TABLE mentions (
    user     INTEGER NOT NULL,
    message  INTEGER NOT NULL,
    PRIMARY KEY (user, message)
) STRICT, WITHOUT ROWID;
CREATE TEMP TABLE found AS
    SELECT message, json_type(text, '$.mentions') = 'text' AS is_all, each.value AS user
    FROM (
        SELECT key AS message, CAST(body AS TEXT) AS text FROM messages
        WHERE instr(body, CAST('"mentions":' AS BLOB))
    ) CROSS JOIN json_each(iif(json_valid(text), text, '{}'), '$.mentions') AS each;
INSERT OR IGNORE INTO names (name) SELECT 'users/' || user || '/inbox' FROM found WHERE NOT is_all;
INSERT OR IGNORE INTO mentions SELECT 0, message FROM found WHERE is_all;
INSERT OR IGNORE INTO mentions
    SELECT id, message FROM found JOIN names ON name = 'users/' || user || '/inbox' WHERE NOT is_all;
DROP TABLE found;
"""

# The checksum of the body (CRC-32); NULL in rows of earlier versions.
_STEP_12 = """
ALTER TABLE messages ADD COLUMN checksum INTEGER;
ALTER TABLE events ADD COLUMN checksum INTEGER;
"""

# What a restore has lost of the logs of a session, as msgpack; NULL unless the session was restored.
_STEP_13 = """
ALTER TABLE sessions ADD COLUMN lost BLOB;
"""

# How the body is compressed; 0 for a body as it is, which costs no byte (`bodies.py`).
_STEP_14 = """
ALTER TABLE messages ADD COLUMN codec INTEGER NOT NULL DEFAULT 0;
"""

# How often a session was claimed by a node.
_STEP_15 = """
ALTER TABLE sessions ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
"""

STEPS: tuple[Step, ...] = (
    _STEP_1,
    _STEP_2,
    _STEP_3,
    _STEP_4,
    _STEP_5,
    number_entries,
    _STEP_7,
    _STEP_8,
    _STEP_9,
    _STEP_10,
    MENTIONS,
    _STEP_12,
    _STEP_13,
    _STEP_14,
    _STEP_15,
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to the newest schema. A node that is killed in between goes on with the step that
    was not finished.

    Raises:
        StoreError: the file was written by a newer version.
    """
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL) STRICT")
    row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    version = row[0] or 0
    if version > len(STEPS):
        raise StoreError(
            f"the database has schema version {version}, newer than version {len(STEPS)} of this program: "
            "use a newer Parley"
        )
    for number, step in enumerate(STEPS[version:], start=version + 1):
        if not isinstance(step, str):
            step(connection)
            connection.execute("INSERT INTO schema_version VALUES (?)", (number,))
            continue
        # executescript() commits any open transaction first, so the script brings its own.
        connection.executescript(
            f"BEGIN IMMEDIATE; {step} INSERT INTO schema_version VALUES ({number}); COMMIT;"
        )
