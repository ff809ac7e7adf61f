"""The broker's side of the bridge port, for services in the same process."""

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from broker.domain import message
from broker.domain.errors import ReasonCode, Refusal, RefusedError, StoreError
from broker.domain.message import Draft, Stamped
from broker.domain.publication import Publication
from broker.node import Node
from broker.ports import Device, Identity, MessageLog, Post, Posted
from broker.publish.committer import Outcome, Submission
from broker.registry import Client
from broker.session.session import Session

_ENTRY_BYTES = 256 * 1024


class LocalBridge:
    """See `broker.ports.BrokerPort`."""

    def __init__(self, node: Node, log: MessageLog) -> None:
        self._node = node
        self._log = log

    # --- messages --------------------------------------------------------------------

    async def publish(self, sender: str, posts: Sequence[Post]) -> list[Posted]:
        """See `BrokerPort`."""
        # Checked and submitted one after the other, so they keep their order. Awaited together, so they
        # share commits.
        waiting: list[asyncio.Future[Outcome]] = []
        for post in posts:
            try:
                draft = await self._node.pipeline.prepare(sender, Publication(post.topic, post.payload, 1))
            except RefusedError as error:
                waiting.append(_known(Refusal(error.code, ReasonCode.UNSPECIFIED, error.detail)))
            except StoreError as error:
                waiting.append(_known(error))
            else:
                waiting.append(self._submit(draft))
        return [await self._posted(await outcome) for outcome in waiting]

    async def append(self, drafts: Sequence[Draft]) -> list[Posted]:
        """See `BrokerPort`."""
        waiting = [self._submit(draft) for draft in drafts]
        return [await self._posted(await outcome) for outcome in waiting]

    def _submit(self, draft: Draft) -> asyncio.Future[Outcome]:
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(outcome: Outcome) -> None:
            if not answered.done():
                answered.set_result(outcome)

        self._node.committer.submit(Submission(draft, done, patient=False))
        return answered

    async def _posted(self, outcome: Outcome) -> Posted:
        if isinstance(outcome, Refusal):
            return outcome
        if isinstance(outcome, StoreError):
            return Refusal("unavailable", ReasonCode.UNSPECIFIED, str(outcome))
        if isinstance(outcome, Stamped):
            return message.read_body(outcome.body)
        (entry,) = await self._log.read(outcome.conversation_id, outcome.seq - 1, 1, _ENTRY_BYTES)
        return message.read_body(entry.body)

    async def watch(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        """See `BrokerPort`."""
        return self._node.fanout.watch(topic, grown)

    async def pace(self, user: str, publishes: int, *, wait: bool) -> None:
        """See `BrokerPort`."""
        now, allowances = asyncio.get_running_loop().time, self._node.publishes
        allowance = allowances.hold(user, now())
        try:
            while wait and allowance.left < 0 and (seconds := allowance.wait(now())):
                self._node.metrics.limited["publishes_per_second"] += 1
                await asyncio.sleep(seconds)
            allowance.take(publishes)
        finally:
            allowances.release(allowance)

    # --- clients ---------------------------------------------------------------------

    async def emit(self, users: Sequence[str], event: Mapping[str, Any], *, keep: bool = True) -> None:
        """See `BrokerPort`."""
        events = self._node.events
        if keep:
            await events.keep(users, event)
        else:
            for user in users:
                events.tell(user, event)

    async def push(self, users: Sequence[str], event: Mapping[str, Any]) -> list[str]:
        """See `BrokerPort`."""
        body = msgspec.json.encode(event)
        return [user for user in users if self._node.online.of(user) and self._node.events.push(user, body)]

    async def devices(self, users: Sequence[str]) -> dict[str, list[str]]:
        """See `BrokerPort`."""
        online = self._node.online
        found = {user: [key.client_id for key in devices] for user in users if (devices := online.of(user))}
        if "" in users and (nameless := [key.client_id for key, _ in online.items() if not key.user]):
            found[""] = nameless
        return found

    async def connections(self, user: str, after: str, limit: int) -> list[Device]:
        """See `BrokerPort`."""
        node = self._node
        clients = node.online.of(user).items() if user else node.online.items()
        wanted = ((f"{key.user} {key.client_id}", client) for key, client in clients)
        found = heapq.nsmallest(limit, (each for each in wanted if each[0] > after), key=lambda each: each[0])
        return [_device(client.session, client) for _, client in found if client.session is not None]

    async def kick(self, user: str) -> int:
        """See `BrokerPort`."""
        return self._node.registry.kick(user, "kicked")

    async def renew(self, client_id: str, identity: Identity) -> bool:
        """See `BrokerPort`."""
        return self._node.registry.renew(client_id, identity)

    async def stats(self) -> dict[str, int]:
        """See `BrokerPort`."""
        return self._node.stats()


def _known(outcome: Outcome) -> asyncio.Future[Outcome]:
    known: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    known.set_result(outcome)
    return known


def _device(session: Session, client: Client) -> Device:
    host, port = client.peer
    return Device(
        session.key.user,
        session.key.client_id,
        f"{host}:{port}",
        session.since,
        session.persistent,
        len(session.filters),
        max((subscription.qos for subscription in session.filters.values()), default=None),
        session.backlog,
    )
