"""The node as its services see it (bridge.control.NodeControl)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from broker.domain import message
from broker.domain.conversation import log_name
from broker.domain.errors import Refusal, StoreError
from broker.domain.message import Body, Stamped
from broker.domain.topics import LOG_KINDS, Topic, parse_topic
from broker.log.committer import Outcome, Submission
from broker.pipeline import Pipeline
from broker.ports import DirectoryError, Identity, MessageLog

_CHUNK = 100
_CHUNK_BYTES = 256 * 1024


class Control:
    """`may_publish` are the topic rules, `issue_token(user, ttl)` signs, `stats` counts."""

    def __init__(
        self,
        pipeline: Pipeline,
        log: MessageLog,
        may_publish: Callable[[Identity, Topic], Awaitable[Refusal | None]],
        issue_token: Callable[[str, float], str],
        stats: Callable[[], dict[str, int]],
    ) -> None:
        self._pipeline = pipeline
        self._log = log
        self._may_publish = may_publish
        self.issue_token = issue_token
        self.stats = stats

    async def send(self, sender: str, to: str, payload: bytes) -> Body:
        """See `bridge.control.NodeControl`."""
        topic = _log_topic(to)
        refusal = await self._may_publish(Identity(sender), topic)
        if refusal is not None:
            raise DirectoryError(refusal.code, refusal.detail)
        content = message.parse_payload(payload)
        if isinstance(content, Refusal):
            raise DirectoryError(content.code, content.detail)
        draft = message.draft(sender, topic, content)
        outcome = await self._commit(draft)
        if isinstance(outcome, Refusal):
            raise DirectoryError(outcome.code, outcome.detail)
        if isinstance(outcome, StoreError):
            raise outcome
        if isinstance(outcome, Stamped):
            return message.read_body(outcome.body)
        (entry,) = await self._log.read(draft.conversation_id, outcome.seq - 1, 1, _CHUNK_BYTES)
        return message.read_body(entry.body)

    async def _commit(self, draft: message.Draft) -> Outcome:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not answered.done():
                answered.set_result(outcome)

        self._pipeline.committer.submit(Submission(draft, done))
        return await answered

    async def head(self, topic: str) -> int:
        """See `bridge.control.NodeControl`."""
        log = log_name(_log_topic(topic))
        return (await self._log.heads([log]))[log]

    async def tail(self, topic: str, after: int | None) -> AsyncIterator[bytes]:
        """See `bridge.control.NodeControl`."""
        log = log_name(_log_topic(topic))
        grown = asyncio.Event()
        stop = self._pipeline.tap(topic, grown)
        try:
            position = await self.head(topic) if after is None else after
            while True:
                grown.clear()  # before the read: what comes during it is not missed
                entries = await self._log.read(log, position, _CHUNK, _CHUNK_BYTES)
                for entry in entries:
                    yield entry.payload
                    position = entry.offset
                if not entries:
                    await grown.wait()
        finally:
            stop()


def _log_topic(name: str) -> Topic:
    topic = parse_topic(name)
    if topic.kind not in LOG_KINDS:
        raise DirectoryError("invalid", f"{name} is neither users/<id>/inbox nor groups/<id>")
    return topic
