"""Opens clients. The only module that knows the kinds of addresses."""

from collections.abc import Awaitable
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.exceptions import RedisError

from broker.domain.errors import StoreError


class RedisOptions(msgspec.Struct, frozen=True):
    """Where Redis is, and how it is used."""

    url: str
    prefix: str = "im:"
    """Of all keys and channels, so that several deployments may share one Redis."""
    most_connections: int = 50
    timeout: float = 2.0
    """Seconds within which Redis must answer."""


def place(url: str) -> str:
    """An address without its password, for people."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def open_client(options: RedisOptions) -> Redis:
    """Connect to Redis.

    Raises:
        StoreError: it cannot be reached, or refuses the password. The text names it, without the password.
    """
    try:
        pool = BlockingConnectionPool.from_url(
            options.url,
            max_connections=options.most_connections,
            timeout=options.timeout,
            socket_timeout=options.timeout,
            socket_connect_timeout=options.timeout,
            health_check_interval=10,
        )
        client = Redis.from_pool(pool)
        await cast(Awaitable[Any], client.ping())
    except (RedisError, OSError, ValueError) as error:
        raise StoreError(f"cluster.url: {place(options.url)}: {error}") from None
    return client
