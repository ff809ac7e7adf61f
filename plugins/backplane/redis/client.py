"""Opens redis-py clients, for what is asked for now and then."""

from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import BlockingConnectionPool, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisClusterException, RedisError

from broker.domain.errors import StoreError

from .options import Address, RedisOptions, parse_url, place

_RETRIES = 2
"""A connection that Redis had closed meanwhile is made again."""

Client = Redis | RedisCluster


class _Master(Redis):
    """Its pool asks the sentinels over connections of their own, which nobody else closes."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all."""
        await super().aclose(close_connection_pool)
        pool = cast(SentinelConnectionPool, self.connection_pool)
        await pool.disconnect()
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()
            await sentinel.connection_pool.disconnect()


async def open_client(options: RedisOptions) -> Client:
    """Connect to Redis.

    Raises:
        StoreError: it cannot be reached, or refuses the password. The text names it, without the password.
    """
    try:
        client = _client(options, parse_url(options.url))
    except (RedisError, OSError, ValueError) as error:
        raise _named(options, error) from None
    try:
        await client.ping()
    except (RedisError, RedisClusterException, OSError) as error:
        await client.aclose()
        raise _named(options, error) from None
    return client


def _named(options: RedisOptions, error: Exception) -> StoreError:
    text = str(error).splitlines()[0] if str(error) else repr(error)
    return StoreError(f"cluster.url: {place(options.url)}: {text}")


def _client(options: RedisOptions, address: Address) -> Client:
    about = _about(options, address)
    if address.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in address.hosts]
        return RedisCluster(startup_nodes=nodes, max_connections=options.most_connections, **about)
    if address.kind == "sentinel":
        login = {"password": options.sentinel_password} if options.sentinel_password else {}
        tls = {key: value for key, value in about.items() if key not in ("username", "password")}
        sentinel = Sentinel(address.hosts, sentinel_kwargs=tls | login)  # type: ignore[no-untyped-call]
        master: Redis = sentinel.master_for(
            address.service,
            _Master,
            db=address.database,
            max_connections=options.most_connections,
            **about,
        )
        return master
    [(host, port)] = address.hosts
    tls_class: dict[str, Any] = {"connection_class": SSLConnection if about.pop("ssl", False) else Connection}
    pool = BlockingConnectionPool(
        host=host,
        port=port,
        db=address.database,
        max_connections=options.most_connections,
        timeout=options.timeout,
        **tls_class,
        **about,
    )
    return Redis.from_pool(pool)


def _about(options: RedisOptions, address: Address) -> dict[str, Any]:
    about: dict[str, Any] = {
        "username": address.user or None,
        "password": address.password or None,
        "socket_timeout": options.timeout,
        "socket_connect_timeout": options.timeout,
        "health_check_interval": 10,
        "retry": Retry(ExponentialBackoff(), _RETRIES),
    }
    if address.tls:
        about |= {"ssl": True, "ssl_ca_certs": options.tls_ca}
    return about
