"""Whether the node can serve: its stores answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

logger = logging.getLogger(__name__)

SECONDS = 1.0


class Readiness:
    """`reads`: what to call each store, and something to ask of it that changes nothing."""

    def __init__(self, reads: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        self._reads = reads
        self._under_way: dict[str, asyncio.Future[object]] = {}

    async def failures(self) -> list[str]:
        """What does not work, e.g. "directory: no answer within 1 s"."""
        asked = {name: self._ask(name) for name in self._reads}
        await asyncio.wait(asked.values(), timeout=SECONDS)
        failures = []
        for name, answer in asked.items():
            if not answer.done():
                failures.append(f"{name}: no answer within {SECONDS:.0f} s")
            elif (error := answer.exception()) is not None:
                logger.error("not ready: %s: %r", name, error)
                failures.append(f"{name}: failed")
        return failures

    def _ask(self, name: str) -> asyncio.Future[object]:
        # However many ask, a store is read once at a time; one that hangs is not asked again.
        under_way = self._under_way.get(name)
        if under_way is None or under_way.done():
            under_way = self._under_way[name] = asyncio.ensure_future(self._reads[name]())
        return under_way
