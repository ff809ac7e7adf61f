"""`python -m cli` is imctl."""

from cli.main import run

run()
