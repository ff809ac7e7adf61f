"""From a configuration to a running process."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
import uvloop

from bridge.grpc_api.server import Server
from bridge.grpc_api.tls import CertificateError, Tls, read_tls
from broker.amqtt_edge.listeners import read_listeners
from broker.amqtt_edge.loading import find_persistence
from broker.config import Config, load
from broker.config_sources import ConfigError
from broker.domain.errors import StoreError
from broker.metrics import Metrics
from broker.net.listeners import Listener, ListenError
from server.assembly import InOneProcess, Joined, Joint, join, open_apis, open_stores
from server.backups import SPOOL, remove
from server.cluster import member, open_cluster
from server.data_dir import StartError, admin_token, need_whole, own, write
from server.files import raise_open_files
from server.greeting import greet
from server.logs import Repeats, start_logging, summing_up
from server.reloading import Reader, Reloading

logger = logging.getLogger("parley")

_M_MMAP_THRESHOLD = -3  # <malloc.h>

DONE, REFUSED, WRONG_USAGE = 0, 1, 2


_IN_ONE_PROCESS = InOneProcess()


def serve(
    config_file: Path,
    data_dir: Path | None,
    settings: list[str],
    joint: Joint = _IN_ONE_PROCESS,
    *,
    accept_new_store: bool = False,
) -> int:
    """Run a node until SIGINT or SIGTERM. SIGHUP reloads its configuration. `accept_new_store`: start even
    if the stores are not the ones that the data directory was used with.

    Returns the exit status: 0 after a signal, 1 if a port, a store or the data directory is not
    available, 2 for a wrong configuration. One line on standard error says why.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nothing is read yet that could be out of date

    def read() -> Config:
        return load(config_file, os.environ, settings, data_dir)

    config = None
    try:
        config = read()
        listeners = read_listeners(config)
        metrics = Metrics()
        repeats = start_logging(config.log.level, config.log.repeats, metrics.leave_out_lines)
        _give_memory_back()
        logger.debug("at most %d open files", raise_open_files())
        running = running_node(config, listeners, joint, metrics, accept_new_store=accept_new_store)
        uvloop.run(_run(config, read, running, repeats))
    except (ConfigError, CertificateError, StartError, StoreError, ListenError, OSError) as error:
        fault = error if config is None else config.fault(error)
        print(f"imctl serve: {fault}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, ConfigError | CertificateError) else REFUSED
    return DONE


def _give_memory_back() -> None:
    """Return freed large blocks to the system.

    By default glibc raises its threshold with every large block that is freed, and keeps blocks below
    it: the 19 MiB that argon2 needs would stay allocated after the first password."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)


async def _run(
    config: Config, read: Reader, node: AbstractAsyncContextManager["Running"], repeats: Repeats
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    hung_up_early = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, hung_up_early.set)
    async with summing_up(repeats), node as running:
        reloading = Reloading(config, read, running.joined, running.grpc)
        loop.add_signal_handler(signal.SIGHUP, reloading.reload)
        if hung_up_early.is_set():
            reloading.reload()
        greet(config, running.addresses)
        await stopping.wait()
        logger.info("shutting down")
        loop.add_signal_handler(signal.SIGHUP, logger.info, "no reload: the node shuts down")


class Running(msgspec.Struct, frozen=True):
    """A node that serves. `addresses`: listener -> host:port."""

    joined: Joined
    grpc: Server
    addresses: dict[str, str]


@contextlib.asynccontextmanager
async def running_node(
    config: Config,
    listeners: list[Listener],
    joint: Joint,
    metrics: Metrics,
    *,
    accept_new_store: bool,
) -> AsyncIterator[Running]:
    """A node that serves while the context lasts."""
    data_dir = config.data_dir
    persistence = find_persistence(config.plugins)
    tls = read_tls(config.grpc.tls_cert, config.grpc.tls_key)
    with own(data_dir):
        need_whole(data_dir)
        remove(data_dir / SPOOL)
        async with contextlib.AsyncExitStack() as stack:
            opened = await open_stores(config, persistence, metrics, stack, accept_new_store=accept_new_store)
            backplane = await open_cluster(config, opened.identity, metrics, stack)
            joined = await join(config, opened, joint, backplane, stack)
            token = admin_token(data_dir)
            # Notices that an earlier run had recorded but not yet written to the logs: before anybody
            # can connect.
            await joined.services.notices.recover()
            bound = await joined.node.start(listeners)
            grpc, apis = await open_apis(config, opened, joined, token, tls, stack)
            addresses = {listener.name: f"{listener.host}:{port}" for listener, port in bound} | apis
            if backplane is not None:
                await backplane.members.announce(member(config, addresses))
            about = {"pid": os.getpid(), "listeners": addresses, "grpc_tls": _shown(tls)}
            write(data_dir / "node.json", apis | about)
            stack.callback((data_dir / "node.json").unlink, missing_ok=True)
            # Everything built so far lives as long as the process: keep the garbage collector from
            # scanning it in every full collection.
            gc.collect()
            gc.freeze()
            yield Running(joined, grpc, addresses)


def _shown(tls: Tls | None) -> dict[str, str] | None:
    """What imctl needs to verify the node's certificate; None without TLS."""
    return None if tls is None else {"certificate": str(tls.file), "name": tls.name}
