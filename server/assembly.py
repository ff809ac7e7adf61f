"""Puts a node together in the order of its dependencies: stores, broker and services, gRPC and HTTP.

Everything is closed in the reverse order, by the exit stack that the functions are given.
"""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from bridge.administration import administration
from bridge.core.access import MessageLimits
from bridge.core.accounts import NewAccounts
from bridge.core.operations import Operations
from bridge.core.quotas import Quotas
from bridge.core.verification import Verification
from bridge.grpc_api import server as grpc_server
from bridge.grpc_api.tls import Tls
from bridge.http_api import server as http_server
from bridge.http_api.logins import Logins
from bridge.http_api.readiness import Readiness
from bridge.http_api.routes import application
from bridge.services import Services
from broker.amqtt_edge.loading import Persistence
from broker.clock import SystemClock
from broker.cluster.bridge import ClusterBridge
from broker.cluster.confirming import Confirming
from broker.config import Config
from broker.domain.attempts import Attempts
from broker.domain.directory import SYSTEM
from broker.domain.ids import Snowflakes
from broker.domain.topics import inbox_topic
from broker.local_bridge import LocalBridge
from broker.metrics import Metrics
from broker.node import Node
from broker.ports import (
    Account,
    Backplane,
    BrokerPort,
    ConversationStore,
    DirectoryError,
    Identified,
    MessageLog,
    ServicesPort,
    StoreContext,
    StoreIdentity,
    Upkeep,
)
from broker.states import States
from plugins.auth import UserAuthPlugin
from plugins.auth.authenticator import Authenticator
from plugins.auth.passwords import Passwords
from plugins.persistence.sql_directory import Pool, SqlDirectory, open_directory
from server.backups import ADMIN, KEYS, NODE, Source
from server.floors import lower_floors
from server.id_twins import report_id_twins
from server.identity import identify
from server.watching import watching


class Joint(Protocol):
    """The connection between the broker and its services: each side reaches the other through it."""

    async def to_broker(self, broker: BrokerPort) -> BrokerPort:
        """The port the services call, in front of `broker`."""
        ...

    async def to_services(self, services: ServicesPort) -> ServicesPort:
        """The port the broker calls, in front of `services`."""
        ...


class InOneProcess:
    """See `Joint`: both sides call each other directly."""

    async def to_broker(self, broker: BrokerPort) -> BrokerPort:
        return broker

    async def to_services(self, services: ServicesPort) -> ServicesPort:
        return services


class Opened(msgspec.Struct, frozen=True):
    """The open stores, their identity, and what all ways in share. `states` groups the commits of its store,
    for the broker and the services."""

    log: MessageLog
    states: States
    conversations: ConversationStore
    directory: SqlDirectory
    passwords: Passwords
    attempts: Attempts
    metrics: Metrics
    clock: SystemClock
    identified: Identified
    """The message store, as what keeps `identity`."""
    identity: StoreIdentity
    upkeep: Upkeep | None
    """None if the store offers no checks and copies."""


class Joined(msgspec.Struct, frozen=True):
    """The broker and the services, connected. `broker` is the node as the services call it."""

    node: Node
    broker: BrokerPort
    services: Services
    authenticator: Authenticator | None
    """None if `plugins.auth.UserAuthPlugin` is not loaded."""


async def open_stores(
    config: Config,
    persistence: Persistence,
    metrics: Metrics,
    stack: AsyncExitStack,
    *,
    accept_new_store: bool,
) -> Opened:
    """Open the stores that `plugins` and `storage` configure, and check that they are the right ones.
    `accept_new_store`: go on with others.

    Raises:
        StartError: the stores are not the ones that the data directory was used with.
        StoreError: a store cannot be opened.
    """
    stores = await persistence.open(StoreContext(config.data_dir))
    stack.push_async_callback(stores.close)
    passwords = Passwords()
    stack.callback(passwords.close)
    # Ids and changes are later than all that is stored, whatever the wall clock says after a restart.
    last_ms = Snowflakes.created_ms(await stores.messages.last_id())
    clock = SystemClock(max(last_ms, await stores.conversations.last_change()))
    url = config.storage.directory_url or f"sqlite:///{(config.data_dir / 'directory.db').absolute()}"
    pool = Pool(**config.storage.directory_pool.model_dump())
    directory = await open_directory(url, passwords.hash, clock.now_ms, pool)
    stack.push_async_callback(directory.close)
    identity = await identify(config.data_dir, stores.identified, directory, accept_new=accept_new_store)
    if accept_new_store:
        await lower_floors(stores.messages, directory)
    await report_id_twins(directory)
    states = States(stores.states, metrics)
    http = config.http
    attempts = Attempts(http.failures_per_user, http.failures_per_address, config.trusted_proxies)
    return Opened(
        stores.messages,
        states,
        stores.conversations,
        directory,
        passwords,
        attempts,
        metrics,
        clock,
        stores.identified,
        identity,
        stores.upkeep,
    )


async def join(
    config: Config, opened: Opened, joint: Joint, backplane: Backplane | None, stack: AsyncExitStack
) -> Joined:
    """Make the broker and the services and connect them. No port is open yet."""
    log, states, directory = opened.log, opened.states, opened.directory
    node = Node(
        config,
        log,
        states,
        opened.conversations,
        directory,
        opened.passwords,
        opened.attempts,
        opened.metrics,
        opened.clock,
        backplane,
    )
    if backplane is not None:
        directory.confirm_by(Confirming(backplane, directory.look).confirm)
    local = LocalBridge(node, log)
    broker = await joint.to_broker(local if backplane is None else ClusterBridge(local, backplane))
    limits = config.limits
    quotas = Quotas(
        limits.groups_per_hour,
        limits.contact_requests_per_hour,
        limits.joins_per_hour,
        limits.repeats_per_hour,
        time.monotonic,
        opened.metrics.limited,
    )
    plugin = node.host.plugin(UserAuthPlugin)
    authenticator = None if plugin is None else plugin.authenticator
    services = Services(
        log,
        states.store,
        states.save,
        opened.conversations,
        directory,
        broker,
        opened.clock,
        message_limits(config),
        limits.group_members,
        quotas,
        opened.metrics.withhold,
        opened.identity.generation,
        authenticator,
    )
    stack.push_async_callback(services.close)
    node.for_services.serve(await joint.to_services(services))
    stack.push_async_callback(node.stop)
    return Joined(node, broker, services, authenticator)


def message_limits(config: Config) -> MessageLimits:
    """The section `messages`."""
    messages = config.messages
    return MessageLimits(
        int(messages.recall_seconds * 1000), int(messages.edit_seconds * 1000), messages.group_receipts
    )


async def open_apis(
    config: Config, opened: Opened, joined: Joined, token: str, tls: Tls | None, stack: AsyncExitStack
) -> tuple[grpc_server.Server, dict[str, str]]:
    """Serve gRPC and HTTP; returns the server of gRPC, and `grpc` and `http` -> host:port.
    `token` is the one imctl uses.

    Raises:
        OSError: a port is not available.
    """
    new_accounts = NewAccounts(opened.directory, opened.log, opened.states.save)
    operations = _administration(config, opened, joined, new_accounts)
    offer = grpc_server.Offer(
        joined.services.operations,
        joined.broker,
        opened.directory,
        joined.authenticator,
        config.limits.rpc_concurrency,
        config.limits.calls_per_user,
        opened.metrics.limited,
    )
    limits = config.limits
    patience = grpc_server.Patience(
        limits.connect_timeout, config.grpc.idle_seconds, limits.unreachable_after
    )
    # A quarter of the reserve is left for the stores. See `_serve_http` for the rest.
    slots = joined.node.slots(limits.reserved_files // 4, proxy_protocol=config.grpc.proxy_protocol)
    grpc = await grpc_server.start(operations, config.grpc.bind, token, slots, offer, tls, patience)
    stack.push_async_callback(grpc.stop)
    readiness = _readiness(opened)
    http = await _serve_http(config, opened, joined, new_accounts, readiness)
    stack.push_async_callback(http.stop)
    await stack.enter_async_context(watching(readiness, grpc.set_ready))
    return grpc, {"grpc": grpc.address, "http": http.address}


def checks(opened: Opened) -> Verification | None:
    """The check of all stores; None if the message store offers none."""
    if opened.upkeep is None:
        return None
    return Verification(opened.upkeep, opened.directory, opened.directory, opened.log)


def _backups(opened: Opened, data_dir: Path, authenticator: Authenticator | None) -> Source | None:
    if opened.upkeep is None:
        return None
    others = {ADMIN: data_dir / ADMIN, NODE: data_dir / NODE}
    if authenticator is not None:
        others[KEYS] = authenticator.key_file
    return Source(data_dir, opened.upkeep, opened.directory, opened.identity, others)


def _administration(config: Config, opened: Opened, joined: Joined, new_accounts: NewAccounts) -> Operations:
    services = joined.services
    return administration(
        opened.directory,
        opened.log,
        opened.states.store,
        joined.broker,
        new_accounts,
        services.groups,
        services.members,
        opened.clock.now_ms,
        _issuer(joined.authenticator),
        checks(opened),
        _backups(opened, config.data_dir, joined.authenticator),
    )


def _issuer(authenticator: Authenticator | None) -> Callable[[Account, float], str]:
    """Issues tokens for imctl, signed with the keys by which the authentication plugin verifies them."""

    def issue(account: Account, ttl: float) -> str:
        if authenticator is None:
            raise DirectoryError("unavailable", "no tokens: plugins.auth.UserAuthPlugin is not loaded")
        return authenticator.issue(account, ttl, time.time())

    return issue


def _readiness(opened: Opened) -> Readiness:
    """Each store is read, and written: what it is given is the identity that it has."""
    log, directory, identity = opened.log, opened.directory, opened.identity
    return Readiness(
        {
            "message store": lambda: log.heads([inbox_topic(SYSTEM)]),
            "message store (writing)": lambda: opened.identified.set_store_identity(identity),
            "directory": lambda: directory.account(SYSTEM),
            "directory (writing)": lambda: directory.set_store_identity(identity),
        },
        lambda: opened.states.outage.reason,
    )


async def _serve_http(
    config: Config, opened: Opened, joined: Joined, new_accounts: NewAccounts, readiness: Readiness
) -> http_server.Server:
    http = config.http
    logins = Logins(
        joined.authenticator,
        opened.directory,
        new_accounts,
        opened.attempts,
        http,
        time.time,
        time.monotonic,
        opened.metrics.refused,
    )
    app = application(logins, readiness, http.cors_origins)
    # Half of the reserve: health must be reached when clients have used up all else, and administration
    # when HTTP clients have.
    slots = joined.node.slots(config.limits.reserved_files // 2, proxy_protocol=http.proxy_protocol)
    return await http_server.start(app, http.bind, config.trusted_proxies, slots)
