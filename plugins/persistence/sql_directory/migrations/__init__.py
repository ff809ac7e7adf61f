"""Migrations of the directory's tables, in order, for Alembic.

A released migration is never edited: another change is another migration. Each describes the tables itself
instead of using `models.py`, which describes only the newest ones.
"""
