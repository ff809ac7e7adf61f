"""The broker's calls to its services: bounded, and reports in batches.

A node creates its services last, and they may be another process. Until they are there, calls and reports
wait.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from broker.domain.acting import acting_for
from broker.domain.errors import ReasonCode, Refusal, StoreError
from broker.domain.lines import SharedLines
from broker.group_commit import GroupCommit
from broker.metrics import Metrics
from broker.ports import Arrival
from broker.ports.bridge import PresenceChange, ServicesPort
from broker.tasks import Tasks

logger = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH = 1000
_WAITING_PER_SLOT = 16
_SHARE = 8
_MOST_WAITING = 100_000
"""The capacity of the queue of arrivals, and of that of presences. Reports beyond it are lost, with the
consequences that `ServicesPort` describes."""
_CLOSE_SECONDS = 2.0

_UNAVAILABLE = msgspec.json.encode(
    {"ok": False, "error": {"code": "unavailable", "detail": "the services do not answer, try again later"}}
)


class _Call(msgspec.Struct, frozen=True):
    """A call of a client. `reply` gets the payload of the answer."""

    user: str
    method: str
    payload: bytes
    reply: Callable[[bytes], None]
    client_id: str


class ForServices:
    """Calls the services. At most `concurrency` calls run at once, and an eighth of them for one user; the
    others wait and are served in turns over users. 16 times as many may wait. Further calls are refused,
    because waiting calls take memory. So are further calls of a user who has `calls_per_user` that run or
    wait."""

    def __init__(self, concurrency: int, calls_per_user: int, metrics: Metrics) -> None:
        self._services: asyncio.Future[ServicesPort] = asyncio.get_running_loop().create_future()
        self._lines: SharedLines[_Call] = SharedLines(concurrency, max(concurrency // _SHARE, 1))
        self._most_calls = concurrency * (1 + _WAITING_PER_SLOT)
        self._calls_per_user = calls_per_user
        self._calls = Tasks()
        self._metrics = metrics
        self._arrivals = GroupCommit(self._bring_arrivals, _BATCH)
        self._presences = GroupCommit(self._bring_presences, _BATCH)

    def allow_calls(self, per_user: int) -> None:
        """Change how many calls of a user run or wait."""
        self._calls_per_user = per_user

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
        if self._lines.count(user) >= self._calls_per_user:
            self._metrics.limited["calls_per_user"] += 1
        elif len(self._lines) >= self._most_calls:
            self._metrics.limited["rpc_concurrency"] += 1
        else:
            self._lines.put(user, _Call(user, method, payload, reply, client_id))
            self._go_on()
            return None
        return Refusal("overloaded", ReasonCode.QUOTA_EXCEEDED, "too many calls at once, try again later")

    def _go_on(self) -> None:
        while (call := self._lines.take()) is not None:
            self._calls.spawn(self._call(call))

    async def _call(self, call: _Call) -> None:
        acting_for(call.user)
        try:
            services = await self._services
            try:
                answer = await services.call(call.user, call.method, call.payload, call.client_id)
            except StoreError as error:
                about = {"client": call.user, "reason": "call failed"}
                logger.error("call of %r for %s failed: %s", call.method[:64], call.user, error, extra=about)
                answer = _UNAVAILABLE
            call.reply(answer)
        finally:
            self._lines.done(call.user)
            self._go_on()

    async def _bring_arrivals(self, batch: Sequence[Arrival]) -> None:
        services = await self._services
        await _lossy(services.arrived(batch), f"{len(batch)} arrivals")

    async def _bring_presences(self, batch: Sequence[PresenceChange]) -> None:
        services = await self._services
        await _lossy(services.presence_changed(batch), f"{len(batch)} presences")

    async def close(self) -> None:
        """Finish the calls, but cancel what takes over two seconds. Then send the reports."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _CLOSE_SECONDS
        while len(self._calls) and (left := end - loop.time()) > 0:
            await self._calls.finish(left)
        self._lines.clear()
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
