"""The bridge's port in the node's own process."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from broker.domain.errors import ReasonCode, Refusal
from broker.domain.topics import Topic, matches
from broker.publish.pipeline import Pipeline

logger = logging.getLogger(__name__)

Callback = Callable[[str, bytes], Awaitable[None]]

_WAITING_PER_SLOT = 16
_CLOSE_SECONDS = 2.0


class LocalBridge:
    """See `broker.ports.BridgePort`. At most `concurrency` calls run at once; some more wait, and
    beyond that callers are refused rather than gathered in memory."""

    def __init__(self, pipeline: Pipeline, concurrency: int) -> None:
        self._pipeline = pipeline
        self._slots = asyncio.Semaphore(concurrency)
        self._most = concurrency * (1 + _WAITING_PER_SLOT)
        self._callbacks: list[tuple[str, Callback]] = []
        self._calls: set[asyncio.Task[None]] = set()

    def subscribe(self, topic_filter: str, callback: Callback) -> None:
        """See `broker.ports.BridgePort`."""
        self._callbacks.append((topic_filter, callback))

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """See `broker.ports.BridgePort`."""
        self._pipeline.broadcast(topic, payload, qos)

    def call(self, topic: Topic, payload: bytes) -> Refusal | None:
        """Hand a client's publish to the callbacks."""
        if len(self._calls) >= self._most:
            return Refusal("overloaded", ReasonCode.QUOTA_EXCEEDED, "too many calls at once, try again later")
        for topic_filter, callback in self._callbacks:
            if matches(topic_filter, topic.name):
                task = asyncio.get_running_loop().create_task(self._run(callback, topic.name, payload))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
        return None

    async def _run(self, callback: Callback, topic: str, payload: bytes) -> None:
        async with self._slots:
            try:
                await callback(topic, payload)
            except Exception:
                logger.exception("a handler of %r failed", topic)

    async def close(self) -> None:
        """Let the calls under way end, those that are slow excepted."""
        if self._calls:
            _, late = await asyncio.wait(self._calls, timeout=_CLOSE_SECONDS)
            for call in late:
                call.cancel()
