"""The path of a publish.

    publish     may this client publish there? (a yes is cached as a permit)
    _accept     which kind of topic is it?
    _store      a message: read the payload, address it, hand it to the committer
                  committer: id, seq, offsets -> one transaction, fsync    (publish/committer.py)
    _answered   tell the sender the outcome: PUBACK
    push        hand the stored message to the connected readers;          (delivery/fanout.py)
                all others read it from the log later

The order is the promise: stored, then acknowledged, then delivered. Topics that are not logs go from
`_accept` straight to `Fanout.forward`.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from msgspec.structs import replace

from broker.delivery.fanout import Fanout
from broker.domain import message
from broker.domain.directory import SYSTEM
from broker.domain.errors import ReasonCode, Refusal, RefusedError, StoreError
from broker.domain.message import Draft
from broker.domain.publication import Publication
from broker.domain.topics import LOG_KINDS, MAX_LEVELS, Kind, Topic, parse_topic
from broker.metrics import Metrics
from broker.ports import Gate, Identity, Principal, StateChange
from broker.publish.committer import Duplicate, MessageCommitter, Outcome, Submission
from broker.publish.events import Events
from broker.publish.for_services import ForServices
from broker.publish.publisher import Publisher
from broker.publish.references import References
from broker.publish.retained_space import RetainedSpace

logger = logging.getLogger(__name__)

Answer = Callable[[Outcome | None], None]
"""Called with the outcome of a publish. None: accepted, and the topic is not a log."""

_PERMITS_CACHED = 1000
_SHOWN = 256
"""Characters of a topic that are logged and sent in an event. Longer topics get no permit."""

_SERVERS = frozenset((Kind.EVENTS, Kind.REPLIES, Kind.SYS))
_OWNERS = frozenset((Kind.PRESENCE, Kind.RPC))


class PresenceClaims(Protocol):
    """See `status.presence.Presence`."""

    def claim(self, user: str, payload: bytes) -> bytes | Refusal | None:
        """A client publishes a presence: the document to retain, or None if nothing is to be retained."""
        ...


class TypingStamps(Protocol):
    """See `status.typing.TypingNotices`."""

    def stamp(self, user: str, topic: Topic, payload: bytes) -> bytes | Refusal | None:
        """A client publishes a typing notice: the payload to forward, or None to drop it."""
        ...


class Pipeline:
    """Takes publications of clients, wills and services to their logs, readers and services."""

    def __init__(
        self,
        gate: Gate,
        references: References,
        committer: MessageCommitter,
        fanout: Fanout,
        events: Events,
        services: ForServices,
        presence: PresenceClaims,
        typing: TypingStamps,
        retained: RetainedSpace,
        metrics: Metrics,
    ) -> None:
        self._gate = gate
        self._references = references
        self._committer = committer
        self._fanout = fanout
        self._events = events
        self._services = services
        self._presence = presence
        self._typing = typing
        self._retained = retained
        self._metrics = metrics
        self._totals = metrics.totals

    # --- from clients ----------------------------------------------------------------

    def publish(
        self, publisher: Publisher, publication: Publication, answer: Answer | None
    ) -> Coroutine[Any, Any, None] | None:
        """Take a client's publish.

        If something must be awaited first, returns a coroutine. Until it is done, no other publish of this
        client may be passed in: they would overtake it. `answer` may be None with QoS 0."""
        self._totals["published"] += 1
        topic = publisher.permits.get(publication.topic)
        if topic is None:
            return self._authorize(publisher, publication, answer)
        return self._accept(publisher, topic, publication, answer)

    def forward_fast(self, publisher: Publisher, publication: Publication) -> Sequence[StateChange] | None:
        """Fast path for a permitted open topic: hand the message to its subscribers. Such a message is
        not parsed, stamped or retained, so the other steps are skipped.

        Returns the changes to commit before the PUBACK, mostly none; or None if the fast path does not
        apply and `publish` must be called."""
        topic = publisher.permits.get(publication.topic)
        if topic is None or topic.kind is not Kind.OTHER or publication.retain:
            return None
        self._totals["published"] += 1
        return self._fanout.deliver(publication)

    async def _authorize(self, publisher: Publisher, publication: Publication, answer: Answer | None) -> None:
        topic = parse_topic(publication.topic)
        # A change of rights replaces `publisher.permits`. If that happens while the gate is asked, the
        # permit below goes to the old dictionary and is forgotten with it.
        permits = publisher.permits
        refusal = _never(publisher.principal.identity.user, topic)
        if refusal is None:
            refusal = await self._gate.may_publish(publisher.principal, topic)
        if refusal is not None:
            self._refuse(publisher, publication, answer, refusal)
            return
        if len(topic.name) <= _SHOWN:
            if len(permits) >= _PERMITS_CACHED:
                permits.clear()
            permits[topic.name] = topic
        asked = self._accept(publisher, topic, publication, answer)
        if asked is not None:
            await asked

    def _accept(
        self, publisher: Publisher, topic: Topic, publication: Publication, answer: Answer | None
    ) -> Coroutine[Any, Any, None] | None:
        kind = topic.kind
        if kind is Kind.OTHER:
            if publication.retain:
                self._retain(publisher, publication, answer)
            else:
                self._fanout.forward(publication, answer)
        elif kind in LOG_KINDS:
            return self._store(publisher, topic, publication, answer)
        elif kind is Kind.RPC:
            self._call(publisher, topic, publication, answer)
        else:
            self._notify(publisher, topic, publication, answer)
        return None

    def _retain(self, publisher: Publisher, publication: Publication, answer: Answer | None) -> None:
        """A publish to an open topic that is to be retained."""
        topic, space, owner = publication.topic, self._retained, publisher.principal.counted_as
        if not space.has_room(topic, publication.payload, owner):
            refusal = Refusal("quota", ReasonCode.QUOTA_EXCEEDED, "too much is retained")
            self._refuse(publisher, publication, answer, refusal)
            return
        change = space.begin(topic)

        def kept(error: StoreError | None) -> None:
            space.settle(change, stored=error is None)
            if answer is not None:
                answer(error)

        self._fanout.forward(publication, kept, owner)

    def _call(
        self, publisher: Publisher, topic: Topic, publication: Publication, answer: Answer | None
    ) -> None:
        reply = partial(self._fanout.broadcast, f"users/{topic.owner}/replies")
        refusal = self._services.call(
            topic.owner, topic.method, publication.payload, reply, publisher.client_id
        )
        if refusal is not None:
            self._refuse(publisher, publication, answer, refusal)
        elif answer is not None:
            answer(None)

    def _notify(
        self, publisher: Publisher, topic: Topic, publication: Publication, answer: Answer | None
    ) -> None:
        """A publish to a presence or typing topic."""
        user = publisher.principal.identity.user
        is_presence = topic.kind is Kind.PRESENCE
        if is_presence:
            payload = self._presence.claim(user, publication.payload)
        else:
            payload = self._typing.stamp(user, topic, publication.payload)
        if isinstance(payload, Refusal):
            self._refuse(publisher, publication, answer, payload)
        elif payload is None:
            if answer is not None:
                answer(None)
        elif is_presence:
            stamped = replace(publication, payload=payload, retain=False)
            self._fanout.retain(stamped, live=True, kept=answer)
        else:
            self._fanout.forward(replace(publication, payload=payload, qos=0, retain=False), answer)

    def _store(
        self, publisher: Publisher, topic: Topic, publication: Publication, answer: Answer | None
    ) -> Coroutine[Any, Any, None] | None:
        composed = self._compose(publisher.principal.identity.user, topic, publication)
        if isinstance(composed, Draft):
            self._submit(publisher, publication, answer, composed)
        elif isinstance(composed, Refusal):
            self._refuse(publisher, publication, answer, composed)
        else:
            return self._store_later(publisher, publication, answer, composed)
        return None

    async def _store_later(
        self,
        publisher: Publisher,
        publication: Publication,
        answer: Answer | None,
        composing: Awaitable[Draft | Refusal],
    ) -> None:
        try:
            composed = await composing
        except StoreError as error:
            self._answered(publisher, publication, answer, error)
            return
        if isinstance(composed, Draft):
            self._submit(publisher, publication, answer, composed)
        else:
            self._refuse(publisher, publication, answer, composed)

    def _submit(
        self, publisher: Publisher, publication: Publication, answer: Answer | None, draft: Draft
    ) -> None:
        self._committer.submit(Submission(draft, partial(self._answered, publisher, publication, answer)))

    def _answered(
        self, publisher: Publisher, publication: Publication, answer: Answer | None, outcome: Outcome
    ) -> None:
        if isinstance(outcome, Refusal):
            self._refuse(publisher, publication, answer, outcome)
            return
        if isinstance(outcome, Duplicate):
            self._metrics.dropped["duplicate"] += 1
        elif isinstance(outcome, StoreError):
            self._totals["commit_failures"] += 1
        if answer is not None:
            answer(outcome)

    def _refuse(
        self, publisher: Publisher, publication: Publication, answer: Answer | None, refusal: Refusal
    ) -> None:
        """Count, log and report a refusal. MQTT 3.1.1 has no reason codes in PUBACK, so the reason goes to
        the user's events."""
        self._metrics.refused[refusal.code] += 1
        principal = publisher.principal
        user = principal.identity.user
        shown, detail = publication.topic[:_SHOWN], refusal.detail[: 2 * _SHOWN]
        client_msg_id = message.client_msg_id_of(publication.payload) if user else None
        _log_refusal(principal, shown, refusal.code, detail, client_msg_id)
        if user:
            error = {
                "code": refusal.code,
                "reason_code": refusal.reason_code,
                "topic": shown,
                "detail": detail,
            }
            if client_msg_id is not None:
                error["client_msg_id"] = client_msg_id
            self._events.error(user, error)
        if answer is not None:
            answer(refusal)

    # --- from services ---------------------------------------------------------------

    async def prepare(self, sender: str, publication: Publication) -> Draft:
        """The draft that `sender`'s publish to an inbox or group would store, after all rules were checked.
        The sender `system` needs no rights. A refusal is raised, not sent as an event.

        Raises:
            RefusedError: refused; `code` is one of docs/topics.md, "Events".
            StoreError: directory or store cannot answer now.
        """
        topic = parse_topic(publication.topic)
        if topic.kind not in LOG_KINDS:
            raise RefusedError("invalid", f"{topic.name} is neither users/<id>/inbox nor groups/<id>")
        if sender != SYSTEM:
            _raise(await self._gate.user_may_publish(Identity(sender), topic))
        composed = self._compose(sender, topic, publication)
        if not isinstance(composed, Draft | Refusal):
            composed = await composed
        if isinstance(composed, Refusal):
            raise RefusedError(composed.code, composed.detail)
        return composed

    # --- both ------------------------------------------------------------------------

    def _compose(
        self, user: str, topic: Topic, publication: Publication
    ) -> Draft | Refusal | Awaitable[Draft | Refusal]:
        """Read the payload and address the message. The result must be awaited if the message has
        `reply_to` or `mentions`, which must be looked up."""
        content = message.parse_payload(publication.payload)
        if isinstance(content, Refusal):
            return content
        draft = message.draft(user, topic, content, publication.qos, publication.properties)
        if content.reply_to is not None or content.mentions is not None:
            return self._checked(draft)
        return draft

    async def _checked(self, draft: Draft) -> Draft | Refusal:
        return await self._references.check(draft.sender, draft.topic, draft.content) or draft


def _log_refusal(principal: Principal, topic: str, code: str, detail: str, client_msg_id: str | None) -> None:
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "refused %s publishing to %r: %s: %r (client %r at %s:%d, client_msg_id %r)",
            principal.identity.user or "anonymous",
            topic,
            code,
            detail,
            principal.client_id,
            *principal.peer,
            client_msg_id,
            extra={"client": principal.counted_as, "reason": f"publish {code}"},
        )


def _never(user: str, topic: Topic) -> Refusal | None:
    """The rules no plugin can relax: no client publishes as the server, for another user, or, if anonymous,
    to any topic of the platform."""
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


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise RefusedError(refusal.code, refusal.detail)
