"""The node's counters and gauges: `admin.stats`."""

import msgspec

from bridge.core.operations import Caller, Operations, Parameters
from broker.ports import BrokerPort


class StatsParameters(Parameters):
    """There are none."""


class StatsResult(msgspec.Struct):
    """Counters and gauges by name."""

    values: dict[str, int]


class Counters:
    """The handler."""

    def __init__(self, broker: BrokerPort) -> None:
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("admin.stats", self.stats)

    async def stats(self, caller: Caller, parameters: StatsParameters) -> StatsResult:
        """Get the counters and gauges of the node."""
        return StatsResult(dict(sorted((await self._broker.stats()).items())))
