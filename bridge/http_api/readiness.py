"""The readiness check: a node is ready while its stores answer and commit."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from broker.domain.errors import StoreUnavailableError

logger = logging.getLogger(__name__)

SECONDS = 1.0
FRESH_SECONDS = 1.0


class Readiness:
    """`reads`: for each store its name and a call that reads or commits something. `outage`: why commits
    of clients fail now, "" if they do not.

    What was found is valid for a second, so that whoever asks often does not cost a commit each time."""

    def __init__(
        self, reads: Mapping[str, Callable[[], Awaitable[object]]], outage: Callable[[], str] = lambda: ""
    ) -> None:
        self._reads = reads
        self._outage = outage
        self._under_way: dict[str, asyncio.Future[object]] = {}
        self._found: list[str] = []
        self._found_at = -FRESH_SECONDS

    async def failures(self) -> list[str]:
        """One line for each store that does not answer or commit, e.g. "directory: no answer within 1 s"."""
        now = asyncio.get_running_loop().time
        if now() - self._found_at >= FRESH_SECONDS:
            self._found = await self._ask_all()
            self._found_at = now()
        outage = self._outage()
        return [*([f"commits fail: {outage}"] if outage else []), *self._found]

    async def _ask_all(self) -> list[str]:
        asked = {name: self._ask(name) for name in self._reads}
        await asyncio.wait(asked.values(), timeout=SECONDS)
        failures = []
        for name, answer in asked.items():
            if not answer.done():
                failures.append(f"{name}: no answer within {SECONDS:.0f} s")
            elif (error := answer.exception()) is not None:
                # Anybody may ask. The texts of other errors may name hosts.
                why = error if isinstance(error, StoreUnavailableError) else "failed"
                failures.append(f"{name}: {why}")
                about = {"client": "", "reason": f"not ready: {name}"}
                logger.error("asking the %s failed: %r", name, error, extra=about)
        return failures

    def _ask(self, name: str) -> asyncio.Future[object]:
        # One read of a store at a time, however many clients ask: a store that hangs must not
        # gather reads.
        under_way = self._under_way.get(name)
        if under_way is None or under_way.done():
            under_way = self._under_way[name] = asyncio.ensure_future(self._reads[name]())
            # It may fail when nobody waits for it any more.
            under_way.add_done_callback(lambda done: done.cancelled() or done.exception())
        return under_way
