"""Migrations of the directory's tables, in order, for Alembic.

A released migration is never edited: another change is another migration. Each describes the tables itself
instead of using `models.py`, which describes only the newest ones.

A migration may be interrupted at any statement. SQLite and PostgreSQL roll it back. MariaDB and MySQL commit
each statement that changes a table, and the number of the version last; so each step there has to work on
what an earlier attempt has left (`reentrant.py`). What a step writes into rows is committed together with the
number, unless it changes a table in between: put it last, or make it give the same result twice.
"""
