"""The pace of a user's calls: `limits.publishes_per_second` holds for them, too."""

from bridge.core.operations import Caller
from broker.ports import BrokerPort


async def pace(broker: BrokerPort, caller: Caller, publishes: int, *, wait: bool) -> None:
    """What the caller does counts as so many publishes. With `wait` this returns when it may go on; without,
    the caller's next calls wait, and the caller's connections are read from later. The calls of services do
    not count."""
    if publishes and not caller.is_system and not caller.by_service:
        await broker.pace(caller.user, publishes, wait=wait)
