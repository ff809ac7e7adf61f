"""How the tables came to be what they are, step by step, for Alembic.

A step is never edited once released: a change is a new one. What it says of the tables is its own,
not that of `models.py`, which is about the newest ones.
"""
