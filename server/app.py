"""The composition root: a configuration becomes a running node."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import uvloop

from bridge.administration import administration
from bridge.core.access import Limits
from bridge.core.accounts import NewAccounts
from bridge.grpc_api import server as grpc_server
from bridge.grpc_api.tls import Tls, read_tls
from bridge.http_api import server as http_server
from bridge.http_api.attempts import Attempts
from bridge.http_api.logins import Logins
from bridge.http_api.readiness import Readiness
from bridge.http_api.routes import application
from bridge.services import Services
from broker.amqtt_edge.listeners import read_listeners
from broker.amqtt_edge.loading import find_persistence
from broker.clock import SystemClock
from broker.config import Config, ConfigError, load
from broker.domain.directory import SYSTEM
from broker.domain.errors import StoreError
from broker.domain.topics import inbox_topic
from broker.local_bridge import LocalBridge
from broker.metrics import Metrics
from broker.net.listeners import Listener, ListenError
from broker.node import Node
from broker.ports import (
    BrokerPort,
    Directory,
    DirectoryError,
    MessageLog,
    ServicesPort,
    StateStore,
    StoreContext,
)
from broker.states import States
from plugins.auth import UserAuthPlugin
from plugins.auth.passwords import Passwords
from plugins.persistence.sql_directory import SqlDirectory, open_directory
from server.data_dir import StartError, admin_token, own, write
from server.greeting import greet

logger = logging.getLogger("parley")

_M_MMAP_THRESHOLD = -3  # <malloc.h>

DONE, REFUSED, WRONG_USAGE = 0, 1, 2


class Joint(Protocol):
    """What the broker and its services reach each other through. In one process that is nothing: each
    is handed to the other as it is."""

    async def to_broker(self, broker: BrokerPort) -> BrokerPort:
        """The broker, as the services are to reach it."""
        ...

    async def to_services(self, services: ServicesPort) -> ServicesPort:
        """The services, as the broker is to reach them."""
        ...


class InOneProcess:
    """See `Joint`."""

    async def to_broker(self, broker: BrokerPort) -> BrokerPort:
        return broker

    async def to_services(self, services: ServicesPort) -> ServicesPort:
        return services


_IN_ONE_PROCESS = InOneProcess()


def serve(
    config_file: Path, data_dir: Path | None, settings: list[str], joint: Joint = _IN_ONE_PROCESS
) -> int:
    """Run a node until SIGINT or SIGTERM; returns the exit status.

    Wrong configuration is 2; a port or data directory that is not to be had is 1. Either says why
    in a line on standard error.
    """
    try:
        config = load(config_file, os.environ, settings, data_dir)
        listeners = read_listeners(config)
        _start_logging(config)
        _give_memory_back()
        uvloop.run(_run(config, listeners, joint))
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


async def _run(config: Config, listeners: list[Listener], joint: Joint) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with running_node(config, listeners, joint) as places:
        greet(config, places)
        await stopping.wait()
        logger.info("shutting down")


@contextlib.asynccontextmanager
async def running_node(
    config: Config, listeners: list[Listener], joint: Joint
) -> AsyncIterator[dict[str, str]]:
    """A node that serves while the context lasts; yields where: names -> addresses."""
    data_dir = config.data_dir
    persistence = find_persistence(config.plugins)
    tls = read_tls(config.grpc)
    with own(data_dir):
        async with contextlib.AsyncExitStack() as stack:
            stores = await persistence.open(StoreContext(data_dir))
            stack.push_async_callback(stores.close)
            log = stores.messages
            passwords = Passwords()
            stack.callback(passwords.close)
            directory = _open_directory(config, passwords)
            stack.push_async_callback(directory.close)
            metrics = Metrics()
            states = States(stores.states, metrics)
            node = Node(config, log, states, directory, passwords, metrics)
            broker = await joint.to_broker(LocalBridge(node, log))
            now_ms = SystemClock().now_ms
            services = Services(
                log,
                states.store,
                states.save,
                stores.conversations,
                directory,
                broker,
                now_ms,
                _amending(config),
                config.limits.group_members,
            )
            node.services.serve(await joint.to_services(services))
            stack.push_async_callback(services.close)
            token = admin_token(data_dir)
            new_accounts = NewAccounts(directory, log, states.save)
            stack.push_async_callback(node.stop)
            await services.notices.recover()
            bound = await node.start(listeners)
            offer = _offer(config, node, services, directory, broker)
            operations = administration(
                directory,
                log,
                broker,
                new_accounts,
                services.groups,
                services.members,
                now_ms,
                _issuer(node),
            )
            api = await grpc_server.start(operations, config.grpc.bind, token, offer, tls)
            stack.push_async_callback(api.stop)
            http = await _serve_http(config, node, log, states.store, directory, new_accounts)
            stack.push_async_callback(http.stop)
            apis = {"grpc": api.address, "http": http.address}
            places = {listener.name: f"{listener.host}:{port}" for listener, port in bound} | apis
            about = {"pid": os.getpid(), "listeners": places, "grpc_tls": _shown(tls)}
            write(data_dir / "node.json", apis | about)
            stack.callback((data_dir / "node.json").unlink, missing_ok=True)
            # What is there now stays: the collector need not look through it again and again.
            gc.collect()
            gc.freeze()
            yield places


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
    config: Config, node: Node, services: Services, directory: Directory, broker: BrokerPort
) -> grpc_server.Offer:
    plugin = node.host.plugin(UserAuthPlugin)
    tokens = plugin.authenticator if plugin is not None else None
    return grpc_server.Offer(services.operations, broker, directory, tokens, config.limits.rpc_concurrency)


def _shown(tls: Tls | None) -> dict[str, str] | None:
    """What imctl needs to know the node by its certificate."""
    return None if tls is None else {"certificate": str(tls.file), "name": tls.name}


async def _serve_http(
    config: Config,
    node: Node,
    log: MessageLog,
    states: StateStore,
    directory: Directory,
    new_accounts: NewAccounts,
) -> http_server.Server:
    http = config.http
    plugin = node.host.plugin(UserAuthPlugin)
    logins = Logins(
        plugin.authenticator if plugin is not None else None,
        directory,
        new_accounts,
        Attempts(http.failures_per_user, http.failures_per_address),
        http,
        time.time,
        node.metrics.refused,
    )
    readiness = Readiness(
        {
            "message store": lambda: log.heads([inbox_topic(SYSTEM)]),
            "message store (writing)": lambda: states.apply([]),
            "directory": lambda: directory.account(SYSTEM),
            "directory (writing)": lambda: directory.drop_notices([]),
        }
    )
    app = application(logins, readiness, http.cors_origins)
    return await http_server.start(app, http.bind, http.trusted_proxies)
