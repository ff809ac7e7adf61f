"""The pace of a user's calls: `limits.publishes_per_second` holds for them, too."""

from bridge.core.operations import Caller
from broker.ports import BrokerPort


async def pace(broker: BrokerPort, caller: Caller, publishes: int) -> None:
    """What the caller does counts as so many publishes; returns when it may go on. The calls of services do
    not count.

    Over MQTT this returns at once, and the caller's connections are read from later. The request itself was
    a publish, and is counted as one."""
    if publishes and not caller.is_system and not caller.by_service:
        await broker.pace(caller.user, publishes, wait=not caller.client_id)
