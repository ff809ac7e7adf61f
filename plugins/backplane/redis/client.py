"""Opens redis-py clients, for what is asked for now and then."""

from collections.abc import Awaitable
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.exceptions import RedisError

from broker.domain.errors import StoreError

from .options import RedisOptions, place


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
