"""Work on the stores of a data directory while no node runs on it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from broker.amqtt_edge.loading import find_persistence
from broker.config import load
from broker.domain.errors import RefusedError
from broker.metrics import Metrics
from broker.ports import Verified
from server.assembly import Opened, checks, open_stores
from server.data_dir import need_whole, own


def verify(config_file: Path, data_dir: Path, take: Callable[[Verified], object]) -> None:
    """Check all that is stored. `take` gets the reports.

    Raises:
        ConfigError: the configuration is wrong.
        StartError: a node uses the data directory, or its stores do not belong together.
        StoreError: a store cannot be opened.
        RefusedError: the store offers no checks.
    """
    asyncio.run(_verify(config_file, data_dir, take))


async def _verify(config_file: Path, data_dir: Path, take: Callable[[Verified], object]) -> None:
    async with _opened(config_file, data_dir) as opened:
        if (verification := checks(opened)) is None:
            raise RefusedError("not_supported", "the store offers no checks")
        async with aclosing(verification.run()) as reports:
            async for report in reports:
                take(report)


@asynccontextmanager
async def _opened(config_file: Path, data_dir: Path) -> AsyncIterator[Opened]:
    """The stores, as a node would open them. Older ones are brought up to date."""
    config = load(config_file, os.environ, [], data_dir)
    async with AsyncExitStack() as stack:
        with config.naming_sources():
            persistence = find_persistence(config.plugins)
            stack.enter_context(own(config.data_dir))
            need_whole(config.data_dir)
            yield await open_stores(config, persistence, Metrics(), stack, accept_new_store=False)
