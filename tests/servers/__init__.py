"""The servers that tests need: one of each kind for a whole test run, started by the first test that asks.

`MYSQL_URL`, `POSTGRES_URL`, `MONGODB_URL` and `REDIS_URL` name servers that are used instead.
"""
