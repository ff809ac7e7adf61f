"""The node as its services see it (bridge.control.NodeControl)."""

import asyncio
from collections.abc import AsyncIterator, Callable

from bridge.control import Device
from broker.amqtt_edge.context import PluginSession
from broker.domain import message
from broker.domain.conversation import log_name
from broker.domain.directory import SYSTEM
from broker.domain.errors import Refusal, RefusedError, StoreError
from broker.domain.message import Body, Stamped
from broker.domain.topics import LOG_KINDS, Topic, parse_topic
from broker.node import Node, plugin_session
from broker.ports import Identity, MessageLog
from broker.publish.committer import Outcome, Submission

_CHUNK = 100
_CHUNK_BYTES = 256 * 1024


class Control:
    """See `bridge.control.NodeControl`. `may_publish` are the topic rules, `issue_token(user, ttl)`
    signs, `stats` counts."""

    def __init__(
        self,
        node: Node,
        log: MessageLog,
        issue_token: Callable[[str, float], str],
    ) -> None:
        self._pipeline = node.pipeline
        self._registry = node.registry
        self._may_publish = node.host.rules_refuse
        self._log = log
        self.save = node.states.save
        self.emit = node.pipeline.emit
        self.tap = node.pipeline.tap
        self.now_ms = node.clock.now_ms
        self.issue_token = issue_token
        self.stats = node.stats

    async def send(self, sender: str, to: str, payload: bytes) -> Body:
        """See `bridge.control.NodeControl`."""
        return await self.append(await self.prepare(sender, to, payload))

    async def prepare(self, sender: str, to: str, payload: bytes) -> message.Draft:
        """See `bridge.control.NodeControl`."""
        topic = _log_topic(to)
        if sender != SYSTEM:
            _raise(await self._may_publish(Identity(sender), topic))
        content = message.parse_payload(payload)
        if isinstance(content, Refusal):
            raise RefusedError(content.code, content.detail)
        if content.reply_to is not None or content.mentions is not None:
            _raise(await self._pipeline.hooks.check(sender, topic, content))
        return message.draft(sender, topic, content)

    async def append(self, draft: message.Draft) -> Body:
        """See `bridge.control.NodeControl`."""
        outcome = await self._commit(draft)
        if isinstance(outcome, Refusal):
            raise RefusedError(outcome.code, outcome.detail)
        if isinstance(outcome, StoreError):
            raise outcome
        if isinstance(outcome, Stamped):
            return message.read_body(outcome.body)
        (entry,) = await self._log.read(draft.conversation_id, outcome.seq - 1, 1, _CHUNK_BYTES)
        return message.read_body(entry.body)

    def devices(self, user: str) -> list[str]:
        """See `bridge.control.NodeControl`."""
        return [key.client_id for key in self._registry.users.get(user, ())]

    def connected(self) -> list[Device]:
        """See `bridge.control.NodeControl`."""
        return [
            Device(key.user, key.client_id, _address(plugin_session(client)))
            for key, client in self._registry.online.items()
        ]

    def kick(self, user: str) -> int:
        """See `bridge.control.NodeControl`."""
        return self._registry.kick(user, "kicked")

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
        stop = self.tap(topic, grown.set)
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


def _address(session: PluginSession) -> str:
    return f"{session.remote_address}:{session.remote_port}"


def _log_topic(name: str) -> Topic:
    topic = parse_topic(name)
    if topic.kind not in LOG_KINDS:
        raise RefusedError("invalid", f"{name} is neither users/<id>/inbox nor groups/<id>")
    return topic


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise RefusedError(refusal.code, refusal.detail)
