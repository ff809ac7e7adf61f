"""The node as a member of a cluster."""

import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from broker import VERSION
from broker.config import Config
from broker.metrics import Metrics
from broker.ports import Backplane, Member, StoreIdentity


def node_name(config: Config) -> str:
    """The name of the node among the others: that of its host or pod, if none is configured."""
    return config.cluster.name or socket.gethostname()


async def open_cluster(
    config: Config, store: StoreIdentity, metrics: Metrics, stack: AsyncExitStack
) -> Backplane | None:
    """Connect to the other nodes; None for a node that has none. Raises `StoreError`."""
    cluster = config.cluster
    if cluster.url is None:
        return None
    # The driver takes 7 MiB of memory, which a node alone need not pay.
    from plugins.backplane.redis import RedisOptions, open_backplane

    options = RedisOptions(
        cluster.url,
        cluster.prefix,
        cluster.most_connections,
        cluster.timeout,
        cluster.tls_ca,
        cluster.sentinel_password,
        # What is known of logs is that of this store: one that was restored has lower heads.
        f"{store.id[:8]}.{store.generation}",
    )
    backplane = await open_backplane(options, node_name(config), metrics.dropped)
    stack.push_async_callback(backplane.close)
    # It shuts down, because what it says of itself would be taken for what the other process says.
    backplane.members.on_replaced(lambda: signal.raise_signal(signal.SIGTERM))
    return backplane


def member(config: Config, addresses: Mapping[str, str]) -> Member:
    """What the other nodes should know of this one."""
    return Member(
        node_name(config),
        config.node.id,
        "all",
        os.getpid(),
        socket.gethostname(),
        VERSION,
        addresses,
        int(time.time() * 1000),
        ready=True,
    )
