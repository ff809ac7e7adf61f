"""Watches whether the node is ready, and says so: in the log when it changes, and by gRPC's health check."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from bridge.http_api.readiness import Readiness

logger = logging.getLogger(__name__)

SECONDS = 3.0
"""Between two looks. Each commits something small in every store."""


@contextlib.asynccontextmanager
async def watching(
    readiness: Readiness, tell: Callable[[bool], Awaitable[None]], seconds: float = SECONDS
) -> AsyncIterator[None]:
    """Watch while the context lasts. `tell` is called with whether the node is ready, when that changes."""
    task = asyncio.get_running_loop().create_task(_watch(readiness, tell, seconds))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _watch(readiness: Readiness, tell: Callable[[bool], Awaitable[None]], seconds: float) -> None:
    was_ready = True
    while True:
        failures = await readiness.failures()
        if was_ready == bool(failures):
            was_ready = not failures
            if failures:
                logger.error("not ready: %s", "; ".join(failures))
            else:
                logger.warning("ready again")
            await tell(was_ready)
        await asyncio.sleep(seconds)
