"""Changes the open topics of a node that runs, for the sessions that are away."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from broker.delivery.away import AwaySessions
from broker.delivery.online import Online
from broker.domain.errors import StoreError

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


async def reopen(away: AwaySessions, open_filters: Callable[[], Sequence[str]], online: Online[Any]) -> None:
    """See `AwaySessions.reopen`. If the store fails, it is asked again until it answers, with the
    `open_filters` of then."""
    is_told = False
    while True:
        try:
            await away.reopen(open_filters(), online)
            return
        except StoreError as error:
            if not is_told:
                logger.error("sessions that are away do not follow the open topics yet: %s", error)
                is_told = True
        await asyncio.sleep(_RETRY_SECONDS)
