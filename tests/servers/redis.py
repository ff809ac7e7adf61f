"""Redis: the run's server, or one of a test's own."""

import os
from collections.abc import Sequence
from pathlib import Path

from tests.servers.processes import HOST, Process, answers, find, folder_of, free_port, keep, shared

_PACKAGE = "redis-server"


def server_url() -> str:
    """The server of the run: redis://HOST:PORT."""
    return os.environ.get("REDIS_URL") or shared("redis", _start_shared)


def _start_shared(folder: Path) -> str:
    data, port = folder_of(folder, "redis"), free_port()
    keep("redis", _command(data, port), data, lambda: answers(port))
    return _url(port)


def own(folder: Path, *options: str) -> tuple[Process, str]:
    """A server of a test's own, not started yet, and its URL. It keeps nothing over a restart."""
    data, port = folder / "redis", free_port()
    data.mkdir(exist_ok=True)
    return Process(_command(data, port, options), folder / "redis.log", lambda: answers(port)), _url(port)


def _command(data: Path, port: int, options: Sequence[str] = ()) -> list[str]:
    program = find("redis-server", _PACKAGE)
    where = ("--bind", HOST, "--port", str(port), "--dir", str(data))
    return [program, *where, "--save", "", "--appendonly", "no", *options]


def _url(port: int) -> str:
    return f"redis://{HOST}:{port}"
