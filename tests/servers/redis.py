"""Redis: the run's server, or servers of a test's own."""

import os
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import redis

from tests.servers.processes import HOST, Process, find, folder_of, free_port, keep, shared, wait_until

_PACKAGE = "redis-server"


def server_url() -> str:
    """A server that tests share, each with a prefix of its own: redis://HOST:PORT."""
    return os.environ.get("REDIS_URL") or shared("redis", _start_shared)


def _start_shared(folder: Path) -> str:
    data, port = folder_of(folder, "redis"), free_port()
    keep("redis", _command(data, port), data, lambda: pings(port))
    return _url(port)


def own(folder: Path, *options: str, port: int = 0, password: str = "") -> tuple[Process, str]:
    """A server of a test's own, not started yet, and its URL. It keeps nothing. `password`: the
    one that it is asked with whether it is ready."""
    port = port or free_port()
    data = folder_of(folder, f"redis-{port}")
    command = [*_command(data, port), *options]
    return Process(command, folder / f"redis-{port}.log", lambda: pings(port, password)), _url(port)


def own_sentinel(folder: Path, master: int, service: str, password: str = "") -> tuple[Process, int]:
    """A sentinel of its own, which alone decides, half a second after it hears nothing of the server at the
    port `master`."""
    port = free_port()
    file = folder_of(folder, f"sentinel-{port}") / "sentinel.conf"
    lines = [
        *(f"port {port}", f"bind {HOST}", f"dir {file.parent}"),
        f"sentinel monitor {service} {HOST} {master} 1",
        f"sentinel down-after-milliseconds {service} 500",
        f"sentinel failover-timeout {service} 3000",
    ]
    if password:
        lines.append(f"sentinel auth-pass {service} {password}")
    file.write_text("\n".join(lines))
    command = [find("redis-sentinel", "redis-sentinel"), str(file)]
    return Process(command, folder / f"sentinel-{port}.log", lambda: pings(port)), port


def make_cluster(folder: Path, ports: Sequence[int]) -> None:
    """Make servers a cluster, each with a third of the slots."""
    places = [f"{HOST}:{port}" for port in ports]
    make = [find("redis-cli", "redis-tools"), "--cluster", "create", *places, "--cluster-yes"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for port in ports:
        wait_until(partial(_is_whole, port), "the cluster", folder / f"redis-{port}.log")


def _is_whole(port: int) -> bool:
    with redis.Redis(HOST, port) as client:
        return bool(client.cluster("info")["cluster_state"] == "ok")


def _command(data: Path, port: int) -> list[str]:
    return [
        *(find("redis-server", _PACKAGE), "--port", str(port), "--bind", HOST, "--dir", str(data)),
        *("--save", "", "--appendonly", "no", "--daemonize", "no", "--repl-diskless-sync-delay", "0"),
    ]


def _url(port: int) -> str:
    return f"redis://{HOST}:{port}"


def pings(port: int, password: str = "") -> bool:
    """Whether a server answers."""
    client = redis.Redis(HOST, port, password=password or None, socket_timeout=1)
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()
