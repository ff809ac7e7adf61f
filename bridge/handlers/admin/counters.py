"""What the node counts: `admin.stats`."""

import msgspec

from bridge.core.operations import Caller, Operations, Parameters
from broker.ports import BrokerPort


class StatsParameters(Parameters):
    """Nothing."""


class StatsResult(msgspec.Struct):
    """Counters and gauges by name."""

    values: dict[str, int]


class Counters:
    """The handler."""

    def __init__(self, broker: BrokerPort) -> None:
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """Offer the method."""
        operations.add("admin.stats", self.stats)

    async def stats(self, caller: Caller, parameters: StatsParameters) -> StatsResult:
        """Counters and gauges of the node."""
        return StatsResult(dict(sorted((await self._broker.stats()).items())))
