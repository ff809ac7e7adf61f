"""The composition root: a configuration becomes a running node."""

import asyncio
import contextlib
import ctypes
import fcntl
import logging
import os
import secrets
import shlex
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import uvloop

from bridge.admin import Administration
from bridge.grpc_api import server as grpc_server
from bridge.local import LocalBridge
from bridge.messages import Messages
from bridge.rpc import RpcServer
from broker.amqtt_host import read_listeners
from broker.config import Config, ConfigError, Storage, load
from broker.control import Control
from broker.domain.errors import StoreError
from broker.net.listeners import Listener, ListenError
from broker.node import Node, SystemClock
from broker.ports import DirectoryError
from plugins.auth import UserAuthPlugin
from plugins.auth.passwords import Passwords
from plugins.auth.tokens import TokenKeyError
from plugins.persistence import sqlite
from plugins.persistence.sql_directory import SqlDirectory, open_directory

logger = logging.getLogger("parley")

_M_MMAP_THRESHOLD = -3  # <malloc.h>

DONE, REFUSED, WRONG_USAGE = 0, 1, 2


class StartError(Exception):
    """The node cannot start here and now; the text says why."""


def serve(config_file: Path, data_dir: Path | None, settings: list[str]) -> int:
    """Run a node until SIGINT or SIGTERM; returns the exit status.

    Wrong configuration is 2; a port or data directory that is not to be had is 1. Either says why
    in a line on standard error.
    """
    try:
        config = load(config_file, os.environ, settings, data_dir)
        listeners = read_listeners(config)
        _start_logging(config)
        _give_memory_back()
        uvloop.run(_run(config, listeners))
    except ConfigError as error:
        print(f"imctl serve: {error}", file=sys.stderr)
        return WRONG_USAGE
    except (StartError, StoreError, ListenError, TokenKeyError, OSError) as error:
        print(f"imctl serve: {error}", file=sys.stderr)
        return REFUSED
    return DONE


def _give_memory_back() -> None:
    """Have large blocks go back to the system when they are freed. By default glibc keeps ever
    larger ones once it has seen one freed: 19 MB after the first password was hashed."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)


def _start_logging(config: Config) -> None:
    logging.basicConfig(
        level=config.log.level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.captureWarnings(True)
    for noisy in ("amqtt", "transitions"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.getLogger("picows").setLevel(logging.CRITICAL)  # what it has to say the listener says


async def _run(config: Config, listeners: list[Listener]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with running_node(config, listeners) as places:
        _greet(config, places)
        await stopping.wait()
        logger.info("shutting down")


@contextlib.asynccontextmanager
async def running_node(config: Config, listeners: list[Listener]) -> AsyncIterator[dict[str, str]]:
    """A node that serves while the context lasts; yields where: names -> addresses."""
    data_dir = config.data_dir
    with _own(data_dir):
        async with contextlib.AsyncExitStack() as stack:
            database = sqlite.open_database(data_dir / "parley.db")
            stack.push_async_callback(database.close)
            passwords = Passwords()
            stack.callback(passwords.close)
            directory = _open_directory(config, passwords)
            stack.push_async_callback(directory.close)
            log = sqlite.SqliteMessageLog(database)
            node = Node(config, log, sqlite.SqliteStateStore(database), directory, passwords)
            bridge = LocalBridge(node.pipeline, config.limits.rpc_concurrency)
            Messages(log, directory).register(RpcServer(bridge))
            node.on_rpc(bridge.call)
            stack.push_async_callback(bridge.close)
            control = Control(node.pipeline, log, node.host.rules_refuse, _issuer(node), node.stats)
            token = _admin_token(data_dir)
            administration = Administration(directory, log, control)
            stack.push_async_callback(node.stop)
            bound = await node.start(listeners)
            api = await grpc_server.start(administration, config.grpc.bind, token)
            stack.push_async_callback(api.stop)
            places = {listener.name: f"{listener.host}:{port}" for listener, port in bound}
            places["grpc"] = api.address
            _write(data_dir / "node.json", {"grpc": api.address, "pid": os.getpid(), "listeners": places})
            stack.callback((data_dir / "node.json").unlink, missing_ok=True)
            yield places


@contextlib.contextmanager
def _own(data_dir: Path) -> Iterator[None]:
    """Make the data directory and keep other nodes out of it."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        raise StartError(f"data directory {data_dir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(f"data directory {data_dir} is in use by another node") from None
        yield


def _open_directory(config: Config, passwords: Passwords) -> SqlDirectory:
    url = config.storage.directory_url or f"sqlite:///{(config.data_dir / 'directory.db').absolute()}"
    return open_directory(url, passwords.hash, SystemClock().now_ms)


def _issuer(node: Node) -> Callable[[str, float], str]:
    """Tokens are signed with the keys the authentication plugin verifies with."""
    plugin = node.host.plugin(UserAuthPlugin)

    def issue(user: str, ttl: float) -> str:
        if plugin is None:
            raise DirectoryError("unavailable", "plugins.auth.UserAuthPlugin is not loaded: no tokens here")
        token: str = plugin.tokens.issue(user, ttl, time.time())
        return token

    return issue


def _admin_token(data_dir: Path) -> str:
    file = data_dir / "admin.token"
    if file.exists():
        return file.read_text().strip()
    token = secrets.token_urlsafe(32)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(token + "\n")
    return token


def _write(file: Path, value: object) -> None:
    temporary = file.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(value))
    temporary.replace(file)


def _imctl(config: Config) -> str:
    """How to call imctl for this node from the directory it was started in."""
    program = sys.argv[0]
    if not program.endswith("imctl"):
        command = f"{os.path.relpath(sys.executable)} -m cli"
    else:
        command = "imctl" if shutil.which("imctl") == program else os.path.relpath(program)
    if config.storage.data_dir == Storage().data_dir:
        return command
    return f"{command} --data-dir {shlex.quote(config.storage.data_dir)}"


def _greet(config: Config, places: dict[str, str]) -> None:
    imctl = _imctl(config)
    print(f"Parley is serving, data in {config.data_dir.absolute()}")
    for name, address in places.items():
        print(f"  {name:<8} {address}")
    print("Try, in another terminal:")
    print(f"  {imctl} user add alice --password wonderland")
    print(f"  {imctl} user add bob --password builder")
    print(f"  {imctl} send bob hello --as alice", flush=True)
