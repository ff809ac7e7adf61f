"""From a publication to its subscribers: connected ones now, all others through log or queue.

In a cluster, what has happened on one node is told to the others as a hint, and delivered there as here."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from broker.delivery.away import AwaySessions
from broker.delivery.frames import EntryFrame, PublicationFrame, decode_frame, encode_frame
from broker.delivery.interest import Interest
from broker.delivery.moves import Moves
from broker.delivery.router import Router
from broker.delivery.subscriber import Subscriber
from broker.domain import message
from broker.domain.errors import StoreError
from broker.domain.message import Stamped, Target
from broker.domain.publication import Properties, Publication
from broker.domain.topics import LOG_KINDS, Kind, parse_topic
from broker.domain.visibility import withheld
from broker.metrics import Metrics
from broker.ports import Hint, Hints, KeptEvent, Retained, StateChange
from broker.states import States
from broker.wire.encoder import Outgoing

Kept = Callable[[StoreError | None], None]
"""Called with None when the changes of a publication are on disk, or with the error."""

Grown = Callable[[], None]

Deliver = Callable[[Publication], Sequence[StateChange]]


class Told(Protocol):
    """What readers need to know of a message beside its body. A `Draft`, or a frame from another node."""

    @property
    def qos(self) -> int: ...

    @property
    def properties(self) -> Properties | None: ...

    @property
    def conversation_id(self) -> str: ...

    @property
    def target(self) -> Target | None: ...


class Fanout:
    """Delivers publications to their subscribers. It checks no rights to publish: its callers do.

    `hints` tell other nodes; None if there are none. `moves` are those of sessions between the nodes."""

    def __init__(
        self,
        router: Router[Subscriber],
        away: AwaySessions,
        states: States,
        metrics: Metrics,
        hints: Hints | None = None,
        interest: Interest | None = None,
        moves: Moves | None = None,
    ) -> None:
        self._moves = moves
        self._hints = hints
        self._interest = interest
        self.deliver: Deliver = self._deliver
        if hints is not None and moves is not None:
            self.deliver = partial(self._deliver_everywhere, hints, moves)
        """Hands a message to the connected subscribers. Returns the changes that queue it for sessions that
        are away; the caller must commit them."""
        self._router = router
        self._away = away
        self._states = states
        self._totals = metrics.totals
        self._drop = metrics.drop
        self._watchers: dict[str, set[Grown]] = {}
        self._retained: list[Callable[[Retained], None]] = []

    # --- entries of logs -------------------------------------------------------------

    def push(self, stamped: Stamped) -> None:
        """Hand a stored message to its connected readers. It may get lost here: it is in the log."""
        self._totals["stored"] += 1
        draft = stamped.draft
        if draft.topic.kind is Kind.GROUP:
            self._push(draft.topic.name, stamped.seq, stamped.body, draft)
        else:
            for log, offset in zip(draft.logs, stamped.offsets, strict=True):
                self._push(log, offset, stamped.body, draft)
        if self._hints is not None:
            self._hints.publish(_hints_of(stamped))

    def push_event(self, event: KeptEvent) -> None:
        """Hand a stored event to its live readers. A hint, too."""
        self._push(event.log, event.offset, event.body, None)
        if self._hints is not None:
            self._hints.publish([Hint(event.log, encode_frame(EntryFrame(event.offset, event.body)))])

    def receive(self, hint: Hint) -> None:
        """Another node has told of an entry that is stored, or of another message: deliver it here."""
        match decode_frame(hint.body):
            case EntryFrame() as frame:
                told = frame if frame.conversation_id else None
                self._push(hint.topic, frame.offset, frame.body, told)
            case PublicationFrame() as frame:
                self._receive(frame.publication(hint.topic), frame.id)
            case None:
                self._drop("hint_unknown")

    def _push(self, topic: str, offset: int, body: bytes, draft: Told | None) -> None:
        """Hand an entry to the live readers of its log. `draft`: that of a message, None for an event."""
        for grown in self._watchers.get(topic, ()):
            grown()
        readers = self._router.exact(topic)
        observers = self._router.wild(topic)
        if not readers and not observers:
            return
        qos, properties = (1, None) if draft is None else (draft.qos, draft.properties)
        payload = message.with_offset(body, offset)
        outgoing = Outgoing(Publication(topic, payload, qos, properties=properties))
        if draft is None or draft.target is None:
            for session in readers:
                session.offer_entry(topic, offset, outgoing)
        else:
            less = message.with_offset(withheld(body), offset)
            hidden = Outgoing(Publication(topic, less, qos, properties=properties))
            for session in readers:
                seen = _may_see(session, topic, draft.conversation_id, draft.target)
                self._totals["withheld"] += not seen
                session.offer_entry(topic, offset, outgoing if seen else hidden)
        self._totals["delivered"] += len(readers)
        for session, granted in observers.items():
            if session not in readers:
                session.offer(outgoing, min(granted, qos))
                self._totals["delivered"] += 1

    def watch(self, topic: str, grown: Grown) -> Callable[[], None]:
        """Call `grown` whenever the topic's log has grown. Call the result to stop.

        `grown` runs in the middle of a delivery, so it must return quickly and change no subscription."""
        watchers = self._watchers.setdefault(topic, set())
        watchers.add(grown)
        if self._interest is not None:
            self._interest.add(topic)

        def stop() -> None:
            if self._interest is not None and grown in watchers:
                self._interest.discard(topic)
            watchers.discard(grown)
            if not watchers and self._watchers.get(topic) is watchers:
                del self._watchers[topic]

        return stop

    # --- other topics ----------------------------------------------------------------

    def _deliver(self, publication: Publication) -> Sequence[StateChange]:
        qos = publication.qos
        plan = self._router.plan(publication.topic)
        if plan:
            outgoing = Outgoing(publication)
            for session, granted in plan.items():
                session.offer(outgoing, granted if granted < qos else qos)
            self._totals["delivered"] += len(plan)
        if not qos or self._away.is_empty:  # mostly: QoS 0 is queued for nobody (3.1.2.4)
            return ()
        queued = self._away.queue(publication)
        self._totals["delivered"] += len(queued)
        return queued

    def _deliver_everywhere(
        self, hints: Hints, moves: Moves, publication: Publication
    ) -> Sequence[StateChange]:
        if publication.topic.startswith("$"):  # $SYS is each node's own
            return self._deliver(publication)
        message_id = moves.next_id() if publication.qos else 0
        frame = PublicationFrame(publication.payload, publication.qos, publication.properties, message_id)
        hints.publish([Hint(publication.topic, encode_frame(frame))])
        self._offer(publication, message_id)
        if not message_id or self._away.is_empty:
            return ()
        queued = self._away.queue(publication, message_id)
        self._totals["delivered"] += len(queued)
        return queued

    def _receive(self, publication: Publication, message_id: int) -> None:
        """Hand a message from another node to the connected subscribers. That node queues it for those that
        it knows to be away."""
        self._offer(publication, message_id)
        moves = self._moves
        if message_id and moves is not None and moves.lingering:
            self.keep(self._away.queue(publication, message_id, moves.lingering))

    def _offer(self, publication: Publication, message_id: int) -> None:
        plan: Mapping[Subscriber, int] = self._router.plan(publication.topic)
        if message_id and self._moves is not None and not self._moves.is_empty:
            is_new = self._moves.is_new
            plan = {each: granted for each, granted in plan.items() if is_new(each.key, message_id)}
        outgoing = Outgoing(publication)
        for session, granted in plan.items():
            session.offer(outgoing, min(granted, publication.qos))
        self._totals["delivered"] += len(plan)

    def offer(self, publication: Publication, user: str) -> bool:
        """Hand a message to the subscribed sessions of one user that are connected to this node. Returns
        whether there are any."""
        plan, outgoing = self._router.plan(publication.topic), Outgoing(publication)
        reached = [subscriber for subscriber in plan if subscriber.key.user == user]
        for subscriber in reached:
            subscriber.offer(outgoing, min(plan[subscriber], publication.qos))
        self._totals["delivered"] += len(reached)
        return bool(reached)

    def forward(self, publication: Publication, kept: Kept | None = None, owner: str = "") -> None:
        """Deliver a message, and retain it for `owner` if its flag says so. `kept` is called when all is on
        disk."""
        changes = self.deliver(publication)
        if publication.retain:
            changes = [*changes, self._keep(publication, live=False, owner=owner)]
        self.keep(changes, kept)

    def retain(self, publication: Publication, *, live: bool = False, kept: Kept | None = None) -> None:
        """Deliver and retain a message. See `Retained` for `live`."""
        self.keep([*self.deliver(publication), self._keep(publication, live)], kept)

    def keep(self, changes: Sequence[StateChange], kept: Kept | None = None) -> None:
        """Commit the changes of a delivery. Without changes `kept` is called at once."""
        if changes:
            self._states.submit(changes, partial(_tell, kept), patient=kept is not None)
        elif kept is not None:
            kept(None)

    def _keep(self, publication: Publication, live: bool, owner: str = "") -> Retained:
        retained = Retained(
            publication.topic,
            publication.payload,
            publication.qos,
            properties=publication.properties,
            live=live,
            owner=owner,
        )
        for told in self._retained:
            told(retained)
        return retained

    def on_retained(self, told: Callable[[Retained], None]) -> None:
        """Call `told` for every message that is to be retained."""
        self._retained.append(told)

    def broadcast(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Publish as the server. Not to a log, whose entries must be stored and have a sender."""
        if parse_topic(topic).kind in LOG_KINDS:
            raise ValueError(f"{topic} is a log: its entries must be stored and have a sender")
        self.forward(Publication(topic, payload, qos))


def _hints_of(stamped: Stamped) -> list[Hint]:
    """What the readers of a message on other nodes need, for each log that has it."""
    draft = stamped.draft
    if draft.topic.kind is Kind.GROUP:
        places = [(draft.topic.name, stamped.seq)]
    else:
        places = list(zip(draft.logs, stamped.offsets, strict=True))
    return [
        Hint(
            log,
            encode_frame(
                EntryFrame(
                    offset, stamped.body, draft.qos, draft.conversation_id, draft.target, draft.properties
                )
            ),
        )
        for log, offset in places
    ]


def _may_see(reader: Subscriber, topic: str, conversation_id: str, target: Target) -> bool:
    """Whether a reader may see the message that an edit or recall is about."""
    tail = reader.tails.get(topic)
    return tail is None or not tail.horizon.hides(conversation_id, target.seq, target.created_at)


def _tell(kept: Kept | None, error: StoreError | None) -> None:
    if kept is not None:
        kept(error)
