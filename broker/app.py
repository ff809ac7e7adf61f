"""The composition root: a configuration becomes a running node."""

import asyncio
import contextlib
import ctypes
import fcntl
import gc
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

from bridge.access import Limits
from bridge.admin import Administration
from bridge.grpc_api import server as grpc_server
from bridge.grpc_api.tls import Tls, read_tls
from bridge.http_api import server as http_server
from bridge.http_api.attempts import Attempts
from bridge.http_api.logins import Logins
from bridge.http_api.readiness import Readiness
from bridge.http_api.routes import application
from bridge.local import LocalBridge
from bridge.services import Services
from broker.amqtt_host import read_listeners
from broker.config import Config, ConfigError, Storage, load
from broker.control import Control
from broker.domain.directory import SYSTEM
from broker.domain.errors import StoreError
from broker.domain.topics import inbox_topic
from broker.net.listeners import Listener, ListenError
from broker.node import Node, SystemClock
from broker.ports import Directory, DirectoryError, MessageLog
from plugins.auth import UserAuthPlugin
from plugins.auth.passwords import Passwords
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
    except (StartError, StoreError, ListenError, OSError) as error:
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
    tls = read_tls(config.grpc)
    with _own(data_dir):
        async with contextlib.AsyncExitStack() as stack:
            database = sqlite.open_database(data_dir / "parley.db")
            stack.push_async_callback(database.close)
            passwords = Passwords()
            stack.callback(passwords.close)
            directory = _open_directory(config, passwords)
            stack.push_async_callback(directory.close)
            log = sqlite.SqliteMessageLog(database)
            states = sqlite.SqliteStateStore(database)
            node = Node(config, log, states, directory, passwords)
            control = Control(node, log, _issuer(node))
            services = Services(
                log,
                states,
                sqlite.SqliteConversationStore(database),
                directory,
                control,
                LocalBridge(node.pipeline, config.limits.rpc_concurrency),
                _amending(config),
                config.limits.group_members,
            )
            node.join(services)
            stack.push_async_callback(services.close)
            token = _admin_token(data_dir)
            administration = Administration(directory, log, control, services.groups, services.members)
            stack.push_async_callback(node.stop)
            await services.notices.recover()
            bound = await node.start(listeners)
            offer = _offer(config, node, services, directory, control)
            api = await grpc_server.start(administration, config.grpc.bind, token, offer, tls)
            stack.push_async_callback(api.stop)
            http = await _serve_http(config, node, log, directory, administration)
            stack.push_async_callback(http.stop)
            apis = {"grpc": api.address, "http": http.address}
            places = {listener.name: f"{listener.host}:{port}" for listener, port in bound} | apis
            about = {"pid": os.getpid(), "listeners": places, "grpc_tls": _shown(tls)}
            _write(data_dir / "node.json", apis | about)
            stack.callback((data_dir / "node.json").unlink, missing_ok=True)
            # What is there now stays: the collector need not look through it again and again.
            gc.collect()
            gc.freeze()
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


def _amending(config: Config) -> Limits:
    return Limits(int(config.messages.recall_seconds * 1000), int(config.messages.edit_seconds * 1000))


def _issuer(node: Node) -> Callable[[str, float], str]:
    """Tokens are signed with the keys the authentication plugin verifies with."""
    plugin = node.host.plugin(UserAuthPlugin)

    def issue(user: str, ttl: float) -> str:
        if plugin is None:
            raise DirectoryError("unavailable", "plugins.auth.UserAuthPlugin is not loaded: no tokens here")
        token: str = plugin.authenticator.issue(user, ttl, time.time())
        return token

    return issue


def _offer(
    config: Config, node: Node, services: Services, directory: Directory, control: Control
) -> grpc_server.Offer:
    plugin = node.host.plugin(UserAuthPlugin)
    tokens = plugin.authenticator if plugin is not None else None
    return grpc_server.Offer(services.operations, control, directory, tokens, config.limits.rpc_concurrency)


def _shown(tls: Tls | None) -> dict[str, str] | None:
    """What imctl needs to know the node by its certificate."""
    return None if tls is None else {"certificate": str(tls.file), "name": tls.name}


async def _serve_http(
    config: Config, node: Node, log: MessageLog, directory: Directory, administration: Administration
) -> http_server.Server:
    http = config.http
    plugin = node.host.plugin(UserAuthPlugin)
    logins = Logins(
        plugin.authenticator if plugin is not None else None,
        directory,
        administration,
        Attempts(http.failures_per_user, http.failures_per_address),
        http,
        time.time,
        node.metrics.refused,
    )
    readiness = Readiness(
        {
            "message store": lambda: log.heads([inbox_topic(SYSTEM)]),
            "message store (writing)": lambda: node.states.store.apply([]),
            "directory": lambda: directory.account(SYSTEM),
            "directory (writing)": lambda: directory.drop_notices([]),
        }
    )
    app = application(logins, readiness, http.cors_origins)
    return await http_server.start(app, http.bind, http.trusted_proxies)


def _admin_token(data_dir: Path) -> str:
    file = data_dir / "admin.token"
    if file.exists():
        token = file.read_bytes().strip().decode(errors="replace")
        if not token.isascii() or not token.isprintable() or not token:
            raise StartError(f"{file}: there is no token in it; without the file, the node makes a new one")
        return token
    token = secrets.token_urlsafe(32)
    # All of it or nothing: a node that was killed here could not start again.
    temporary = file.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(token + "\n")
    temporary.replace(file)
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
