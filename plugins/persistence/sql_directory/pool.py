"""How many connections to a database server a node keeps, and how long it waits for them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Pool:
    """See `storage.directory_pool` in config/broker.yaml. Times are seconds."""

    kept: int = 10
    most: int = 100
    idle_seconds: float = 60.0
    connect_timeout: float = 5.0
    timeout: float = 10.0
