"""The story of a publish.

    publish     may this client publish there? (the answer is remembered)
    _accept     which kind of topic is it?
    _store      a message: read the payload, hand it to the committer
                  committer: id, seq, offsets -> one transaction, fsync        (log/committer.py)
    _answered   tell the sender: PUBACK with what became of it
    push        hand the stored message to those subscribed now; all others will read the log

Topics that are not logs skip the middle: `_forward`.
"""

import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Protocol

import msgspec

from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.domain import message
from broker.domain.errors import ReasonCode, Refusal, StoreError
from broker.domain.message import Content, Stamped
from broker.domain.topics import LOG_KINDS, MAX_LEVELS, Kind, Topic, parse_topic
from broker.metrics import Metrics
from broker.ports import Gate, Principal, Retained, StateChange
from broker.publish.committer import Duplicate, MessageCommitter, Outcome, Submission
from broker.states import States
from broker.wire.encoder import Outgoing
from broker.wire.packets import Publish

logger = logging.getLogger(__name__)

Done = Callable[[Outcome | None], None]
"""Told what became of a publish; None: accepted, and nothing was to be stored in a log."""

_PERMITS_CACHED = 1000
_SHOWN = 256
"""Characters of a topic that are logged, remembered and told."""

_SERVERS = frozenset((Kind.EVENTS, Kind.REPLIES, Kind.SYS))
_OWNERS = frozenset((Kind.PRESENCE, Kind.RPC))


class Publisher:
    """A client that publishes, and where it may: topics it was allowed, till a right changes.

    `epoch` is the registry's when the client was authenticated.
    """

    __slots__ = ("epoch", "permits", "principal")

    def __init__(self, principal: Principal, epoch: int = 0) -> None:
        self.principal = principal
        self.epoch = epoch
        self.permits: dict[str, Topic] = {}

    def forget_permits(self, topics: Collection[str] | None = None) -> None:
        """Ask anew, about some topics or all. What is being asked now is not remembered: its answer may
        be out of date."""
        kept = self.permits.items() if topics is not None else ()
        self.permits = {name: topic for name, topic in kept if name not in (topics or ())}


class Hooks(Protocol):
    """What happens on topics with a meaning of their own."""

    def presence(self, user: str, payload: bytes) -> bytes | Refusal | None:
        """A client says how its user is: the presence to retain, stamped, if it is to be said."""
        ...

    def typing(self, user: str, topic: Topic, payload: bytes) -> bytes | Refusal | None:
        """A client says its user is typing: the stamped payload to pass on, if it is to be."""
        ...

    async def check(self, user: str, topic: Topic, content: Content) -> Refusal | None:
        """Whether what a message refers to (`reply_to`, `mentions`) is there."""
        ...

    def rpc(self, topic: Topic, payload: bytes) -> Refusal | None:
        """A client calls a method."""
        ...


class Pipeline:
    """Takes what clients, wills, plugins and the bridge publish to where it goes."""

    def __init__(self, router: Router[Subscriber], gate: Gate, states: States, metrics: Metrics) -> None:
        self._router = router
        self._gate = gate
        self._states = states
        self._metrics = metrics
        self._totals = metrics.totals
        self._taps: dict[str, set[Callable[[], None]]] = {}
        self.offline: list[StateChange] = []
        """Where subscribers that are away put what is to be queued for them."""
        self.on_retained: Callable[[Retained], None] | None = None
        """Told of every message that is to be retained."""
        self.committer: MessageCommitter
        self.hooks: Hooks
        self.queue_event: Callable[[str, str, bytes], None]
        """Queues an event for a user's sessions that are away: (user, topic, payload)."""

    # --- from clients ----------------------------------------------------------------

    def publish(self, publisher: Publisher, packet: Publish, done: Done | None) -> Awaitable[None] | None:
        """Take a client's publish. If something must be awaited first, returns it: until then
        nothing else of this client may be published. `done` may be None with QoS 0."""
        self._totals["published"] += 1
        topic = publisher.permits.get(packet.topic)
        if topic is None:
            return self._authorize(publisher, packet, done)
        return self._accept(publisher, topic, packet, done)

    def forward_fast(self, publisher: Publisher, packet: Publish) -> bool:
        """Fast path for an open topic the client was allowed before: hand the message to those
        subscribed and return True. What it skips is not needed there: nothing is parsed, stamped or
        retained. Only `offline`, if it has something now, must be stored before the PUBACK."""
        topic = publisher.permits.get(packet.topic)
        if topic is None or topic.kind is not Kind.OTHER or packet.retain:
            return False
        self._totals["published"] += 1
        self._fan_out(packet.topic, packet.payload, packet.qos)
        return True

    async def _authorize(self, publisher: Publisher, packet: Publish, done: Done | None) -> None:
        topic = parse_topic(packet.topic)
        permits = publisher.permits  # another one, if a right changes while the gate is asked
        refusal = _never(publisher.principal.identity.user, topic)
        if refusal is None:
            refusal = await self._gate.may_publish(publisher.principal, topic)
        if refusal is not None:
            self._refuse(publisher, packet, done, refusal)
            return
        if len(packet.topic) <= _SHOWN:
            if len(permits) >= _PERMITS_CACHED:
                permits.clear()
            permits[packet.topic] = topic
        asked = self._accept(publisher, topic, packet, done)
        if asked is not None:
            await asked

    def _accept(
        self, publisher: Publisher, topic: Topic, packet: Publish, done: Done | None
    ) -> Awaitable[None] | None:
        kind = topic.kind
        if kind is Kind.OTHER:
            self._forward(topic.name, packet.payload, packet.qos, packet.retain, done)
        elif kind in LOG_KINDS:
            return self._store(publisher, topic, packet, done)
        elif kind is Kind.RPC:
            refusal = self.hooks.rpc(topic, packet.payload)
            if refusal is not None:
                self._refuse(publisher, packet, done, refusal)
            elif done is not None:
                done(None)
        else:
            self._notify(publisher, topic, packet, done)
        return None

    def _notify(self, publisher: Publisher, topic: Topic, packet: Publish, done: Done | None) -> None:
        """Presence, or typing."""
        user = publisher.principal.identity.user
        is_presence = topic.kind is Kind.PRESENCE
        if is_presence:
            payload = self.hooks.presence(user, packet.payload)
        else:
            payload = self.hooks.typing(user, topic, packet.payload)
        if isinstance(payload, Refusal):
            self._refuse(publisher, packet, done, payload)
        elif payload is None:
            if done is not None:
                done(None)
        elif is_presence:
            self.retain(topic.name, payload, packet.qos, live=True, done=done)
        else:
            self._forward(topic.name, payload, 0, False, done)

    def _store(
        self, publisher: Publisher, topic: Topic, packet: Publish, done: Done | None
    ) -> Awaitable[None] | None:
        content = message.parse_payload(packet.payload)
        if isinstance(content, Refusal):
            self._refuse(publisher, packet, done, content)
            return None
        if content.reply_to is not None or content.mentions is not None:
            return self._check(publisher, topic, packet, done, content)
        self._submit(publisher, topic, packet, done, content)
        return None

    async def _check(
        self, publisher: Publisher, topic: Topic, packet: Publish, done: Done | None, content: Content
    ) -> None:
        try:
            refusal = await self.hooks.check(publisher.principal.identity.user, topic, content)
        except StoreError as error:
            self._answered(publisher, packet, done, error)
            return
        if refusal is not None:
            self._refuse(publisher, packet, done, refusal)
        else:
            self._submit(publisher, topic, packet, done, content)

    def _submit(
        self, publisher: Publisher, topic: Topic, packet: Publish, done: Done | None, content: Content
    ) -> None:
        draft = message.draft(publisher.principal.identity.user, topic, content, packet.qos)
        self.committer.submit(Submission(draft, partial(self._answered, publisher, packet, done)))

    def _answered(self, publisher: Publisher, packet: Publish, done: Done | None, outcome: Outcome) -> None:
        if isinstance(outcome, Refusal):
            self._refuse(publisher, packet, done, outcome)
            return
        if isinstance(outcome, Duplicate):
            self._metrics.dropped["duplicate"] += 1
        elif isinstance(outcome, StoreError):
            self._totals["commit_failures"] += 1
        if done is not None:
            done(outcome)

    def push(self, stamped: Stamped) -> None:
        """Hand a stored message to its live readers: a hint, all it holds is in the log."""
        self._totals["stored"] += 1
        draft = stamped.draft
        if draft.topic.kind is Kind.GROUP:
            self._push(draft.topic.name, stamped.seq, stamped)
        else:
            for log, offset in zip(draft.logs, stamped.offsets, strict=True):
                self._push(log, offset, stamped)

    def _push(self, topic: str, offset: int, stamped: Stamped) -> None:
        for grown in self._taps.get(topic, ()):
            grown()
        readers = self._router.exact(topic)
        observers = self._router.wild(topic)
        if not readers and not observers:
            return
        qos = stamped.draft.qos
        outgoing = Outgoing(topic, message.with_offset(stamped.body, offset), qos)
        for session in readers:
            session.offer_entry(topic, offset, outgoing)
        self._totals["delivered"] += len(readers)
        for session, granted in observers.items():
            if session not in readers:
                session.offer(outgoing, min(granted, qos))
                self._totals["delivered"] += 1

    def _refuse(self, publisher: Publisher, packet: Publish, done: Done | None, refusal: Refusal) -> None:
        """A refusal is never silent: MQTT 3.1.1 has no reason codes, so an event says it."""
        self._metrics.refused[refusal.code] += 1
        user = publisher.principal.identity.user
        shown, detail = packet.topic[:_SHOWN], refusal.detail[: 2 * _SHOWN]
        logger.info("refused %s publishing to %r: %r", user or "anonymous", shown, detail)
        if user:
            content = message.parse_payload(packet.payload)
            event = {
                "event": "error",
                "code": refusal.code,
                "reason_code": refusal.reason_code,
                "topic": shown,
                "detail": detail,
            }
            if isinstance(content, Content) and content.client_msg_id is not None:
                event["client_msg_id"] = content.client_msg_id
            self.emit(user, event)
        if done is not None:
            done(refusal)

    # --- topics that are not logs ----------------------------------------------------

    def _forward(self, topic: str, payload: bytes, qos: int, retain: bool, done: Done | None) -> None:
        self._fan_out(topic, payload, qos)
        if retain:
            self._keep(Retained(topic, payload, qos))
        if self.offline:
            self.store_offline(done)
        elif done is not None:
            done(None)

    def _fan_out(self, topic: str, payload: bytes, qos: int) -> None:
        plan = self._router.plan(topic)
        if plan:
            outgoing = Outgoing(topic, payload, qos)
            for session, granted in plan.items():
                session.offer(outgoing, granted if granted < qos else qos)
            self._totals["delivered"] += len(plan)

    def store_offline(self, done: Done | None) -> None:
        """Store what `offline` gathered."""
        offline, self.offline = self.offline, []
        self._states.submit(offline, partial(_saved, done))

    def retain(
        self, topic: str, payload: bytes, qos: int, *, live: bool = False, done: Done | None = None
    ) -> None:
        """Publish and retain, marked `live` if it must not outlast the node."""
        self._keep(Retained(topic, payload, qos, live))
        self._forward(topic, payload, qos, False, done)

    def _keep(self, retained: Retained) -> None:
        self.offline.append(retained)
        if self.on_retained is not None:
            self.on_retained(retained)

    def broadcast(self, topic: str, payload: bytes, qos: int) -> None:
        """Publish as the server, to whoever is subscribed. Not for logs."""
        if parse_topic(topic).kind in LOG_KINDS:
            raise ValueError(f"{topic} is a log: what stands in it has a sender")
        self._forward(topic, payload, qos, False, None)

    def emit(self, user: str, event: dict[str, Any], *, keep: bool = True) -> None:
        """Send an event to a user's sessions; with `keep` those that are away get it later."""
        topic = f"users/{user}/events"
        payload = msgspec.json.encode(event)
        self._forward(topic, payload, 1, False, None)
        if keep:
            self.queue_event(user, topic, payload)

    # --- readers in this process -----------------------------------------------------

    def tap(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        """Have `grown` called whenever the topic's log has grown; call the result to stop that. It is
        called while a message is handed out, so it only takes note."""
        taps = self._taps.setdefault(topic, set())
        taps.add(grown)

        def stop() -> None:
            taps.discard(grown)
            if not taps:
                self._taps.pop(topic, None)

        return stop


def _never(user: str, topic: Topic) -> Refusal | None:
    """What no plugin can allow: to speak as the server, as somebody else, or as nobody."""
    if topic.name.count("/") >= MAX_LEVELS:
        return Refusal("unknown_topic", ReasonCode.TOPIC_NAME_INVALID, f"more than {MAX_LEVELS} levels")
    if topic.kind in _SERVERS:
        return Refusal(
            "not_authorized", ReasonCode.NOT_AUTHORIZED, f"only the server publishes to {topic.name}"
        )
    if topic.kind in _OWNERS and topic.owner != user:
        return Refusal(
            "not_authorized", ReasonCode.NOT_AUTHORIZED, f"only {topic.owner} may publish to {topic.name}"
        )
    if not user and topic.kind is not Kind.OTHER:
        return Refusal("anonymous", ReasonCode.NOT_AUTHORIZED, "anonymous clients may use open topics only")
    return None


def _saved(done: Done | None, error: StoreError | None) -> None:
    if done is not None:
        done(error)
