"""The broker's calls to its services: bounded, and reports in batches.

A node creates its services last, and they may be another process. Until they are there, calls and reports
wait.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from broker.domain.errors import ReasonCode, Refusal, StoreError
from broker.group_commit import GroupCommit
from broker.metrics import Metrics
from broker.ports import Arrival
from broker.ports.bridge import PresenceChange, ServicesPort
from broker.tasks import Tasks

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH = 1000
_WAITING_PER_SLOT = 16
_MOST_WAITING = 100_000
"""The capacity of the queue of arrivals, and of that of presences. Reports beyond it are lost, with the
consequences that `ServicesPort` describes."""
_CLOSE_SECONDS = 2.0

_UNAVAILABLE = msgspec.json.encode(
    {"ok": False, "error": {"code": "unavailable", "detail": "the services do not answer, try again later"}}
)


class ForServices:
    """Calls the services. At most `concurrency` calls run at once, and 16 times as many wait. Further calls
    are refused, because waiting calls take memory. So are further calls of a user who has `calls_per_user`
    that run or wait."""

    def __init__(self, concurrency: int, calls_per_user: int, metrics: Metrics) -> None:
        self._services: asyncio.Future[ServicesPort] = asyncio.get_running_loop().create_future()
        self._slots = asyncio.Semaphore(concurrency)
        self._most_calls = concurrency * (1 + _WAITING_PER_SLOT)
        self._calls_per_user = calls_per_user
        self._of_users: Counter[str] = Counter()
        self._calls = Tasks()
        self._metrics = metrics
        self._arrivals = GroupCommit(self._bring_arrivals, _BATCH)
        self._presences = GroupCommit(self._bring_presences, _BATCH)

    def arrived(self, arrival: Arrival) -> None:
        """A device acknowledged entries of its user's inbox."""
        self._submit(self._arrivals, arrival, "arrivals_waiting")

    def presence_changed(self, change: PresenceChange) -> None:
        """A user's presence changed."""
        self._submit(self._presences, change, "presences_waiting")

    def _submit(self, queue: GroupCommit[T], item: T, reason: str) -> None:
        if len(queue) < _MOST_WAITING:
            queue.submit(item)
        else:
            self._metrics.drop(reason)

    def serve(self, services: ServicesPort) -> None:
        """Send all calls and reports to these services. To be called once."""
        self._services.set_result(services)

    def call(
        self, user: str, method: str, payload: bytes, reply: Callable[[bytes], None], client_id: str = ""
    ) -> Refusal | None:
        """Call a method for a client; `reply` gets the payload of the answer. Refused with `overloaded` if
        too many calls wait, of all users or of this one."""
        if self._of_users[user] >= self._calls_per_user:
            self._metrics.limited["calls_per_user"] += 1
        elif len(self._calls) >= self._most_calls:
            self._metrics.limited["rpc_concurrency"] += 1
        else:
            self._of_users[user] += 1
            self._calls.spawn(self._call(user, method, payload, reply, client_id))
            return None
        return Refusal("overloaded", ReasonCode.QUOTA_EXCEEDED, "too many calls at once, try again later")

    async def _call(
        self, user: str, method: str, payload: bytes, reply: Callable[[bytes], None], client_id: str
    ) -> None:
        try:
            await self._answered(user, method, payload, reply, client_id)
        finally:
            self._of_users[user] -= 1
            if not self._of_users[user]:
                del self._of_users[user]

    async def _answered(
        self, user: str, method: str, payload: bytes, reply: Callable[[bytes], None], client_id: str
    ) -> None:
        services = await self._services
        async with self._slots:
            try:
                answer = await services.call(user, method, payload, client_id)
            except StoreError as error:
                about = {"client": user, "reason": "call failed"}
                logger.error("call of %r for %s failed: %s", method[:64], user, error, extra=about)
                answer = _UNAVAILABLE
        reply(answer)

    async def _bring_arrivals(self, batch: Sequence[Arrival]) -> None:
        services = await self._services
        await _lossy(services.arrived(batch), f"{len(batch)} arrivals")

    async def _bring_presences(self, batch: Sequence[PresenceChange]) -> None:
        services = await self._services
        await _lossy(services.presence_changed(batch), f"{len(batch)} presences")

    async def close(self) -> None:
        """Finish the running calls, but cancel those that take over two seconds. Then send the reports."""
        await self._calls.finish(_CLOSE_SECONDS)
        if not self._services.done():
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._arrivals.drain()
                await self._presences.drain()
        except TimeoutError:
            logger.error("the services do not answer: what waits for them is given up")


async def _lossy(telling: Coroutine[Any, Any, None], what: str) -> None:
    """Send a report. One that cannot be sent is lost, as `ServicesPort` documents."""
    try:
        await telling
    except StoreError as error:
        logger.error("%s could not be reported to the services: %s", what, error)
