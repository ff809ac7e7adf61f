"""The readiness check: a node is ready while its stores answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

logger = logging.getLogger(__name__)

SECONDS = 1.0


class Readiness:
    """`reads`: for each store its name and a call that reads something from it."""

    def __init__(self, reads: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        self._reads = reads
        self._under_way: dict[str, asyncio.Future[object]] = {}

    async def failures(self) -> list[str]:
        """One line for each store that does not answer, e.g. "directory: no answer within 1 s"."""
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
        # One read of a store at a time, however many clients ask: a store that hangs must not
        # gather reads.
        under_way = self._under_way.get(name)
        if under_way is None or under_way.done():
            under_way = self._under_way[name] = asyncio.ensure_future(self._reads[name]())
        return under_way
