"""Stamps messages and commits them, many in one commit."""

import logging
from collections.abc import Callable, Sequence

import msgspec

from broker.domain.conversation import is_conversation
from broker.domain.errors import DuplicateMessageError, ReasonCode, Refusal, StoreError
from broker.domain.message import Draft, Stamped, read_body, says_the_same
from broker.group_commit import GroupCommit
from broker.ports import Clock, DedupKey, MessageLog
from broker.publish.sequencer import Sequencer

logger = logging.getLogger(__name__)

_ATTEMPTS = 3


class Duplicate(msgspec.Struct, frozen=True):
    """The message was stored before, with this id and seq."""

    id: str
    conversation_id: str
    seq: int


Outcome = Stamped | Duplicate | Refusal | StoreError
"""The result of a draft: stored now, stored before, refused, or not stored."""


class Submission(msgspec.Struct, frozen=True, gc=False):
    """A draft on its way to the store. `done` is called with its outcome, once."""

    draft: Draft
    done: Callable[[Outcome], None]


class MessageCommitter:
    """Stamps and commits drafts, acknowledges them, then pushes them to readers.

    Nothing is acknowledged or pushed before it is fsynced. `publish` is called for each stored message, in
    the order of the log, after the `done` of the whole batch.
    """

    def __init__(
        self,
        log: MessageLog,
        sequencer: Sequencer,
        clock: Clock,
        publish: Callable[[Stamped], None],
        max_batch: int,
    ) -> None:
        self._log = log
        self._sequencer = sequencer
        self._clock = clock
        self._publish = publish
        self._group = GroupCommit(self._commit, max_batch)
        self.submit = self._group.submit
        self.drain = self._group.drain

    def __len__(self) -> int:
        return len(self._group)

    async def _commit(self, batch: list[Submission]) -> None:
        try:
            stamped = await self._append([item.draft for item in batch])
        except DuplicateMessageError:
            await self._commit_again(batch)
        except Exception as error:  # `append` commits all or nothing, so nothing was stored
            self._fail(batch, error)
        else:
            self._succeed(batch, stamped)

    async def _append(self, drafts: Sequence[Draft]) -> list[Stamped]:
        sequencer = self._sequencer
        try:
            if unknown := sequencer.unknown(drafts):
                counts = await self._log.counts(list(filter(is_conversation, unknown)))
                sequencer.learn(await self._log.heads(unknown), counts)
            stamped = sequencer.stamp(drafts, self._clock.now_ms(), self._clock.growing_ms())
            await self._log.append(stamped)
        except BaseException:
            # The heads were counted up for drafts that are not stored. Reading them from the store again
            # leaves no gap.
            sequencer.forget(drafts)
            raise
        return stamped

    def _succeed(self, batch: Sequence[Submission], stamped: Sequence[Stamped]) -> None:
        for item, message in zip(batch, stamped, strict=True):
            _tell(item, message)
        for message in stamped:
            try:
                self._publish(message)
            except Exception:
                # The message is stored: readers find it in the log.
                logger.exception("pushing a message of %s failed", message.draft.conversation_id)

    def _fail(self, batch: Sequence[Submission], error: Exception) -> None:
        logger.error("commit of %d messages failed, none acknowledged: %s", len(batch), error)
        failure = error if isinstance(error, StoreError) else StoreError(repr(error))
        for item in batch:
            _tell(item, failure)

    async def _commit_again(self, batch: list[Submission]) -> None:
        """Some idempotency keys of the batch are stored: find out which, and commit the rest.

        Looking up every key before each commit would cost all messages a query. A repeated
        `client_msg_id` is rare, so only a batch that holds one pays for it.
        """
        for _ in range(_ATTEMPTS):
            first: dict[DedupKey, Submission] = {}
            repeated = []
            fresh = []
            for item in batch:
                key = _key(item.draft)
                if key is None:
                    fresh.append(item)
                elif key in first:
                    repeated.append((item, key))
                else:
                    first[key] = item
                    fresh.append(item)
            try:
                stored = await self._log.find(list(first))
                fresh = [item for item in fresh if _key(item.draft) not in stored]
                stamped = await self._append([item.draft for item in fresh])
            except DuplicateMessageError:
                continue
            except Exception as error:
                self._fail(batch, error)
                return
            for key, item in first.items():
                if key in stored:
                    _tell(item, _repeat(item.draft, stored[key]))
            self._succeed(fresh, stamped)
            bodies = {key: message.body for message in stamped if (key := _key(message.draft))}
            for item, key in repeated:
                _tell(item, _repeat(item.draft, stored.get(key) or bodies[key]))
            return
        self._fail(batch, StoreError("the ids or offsets of a batch were taken again and again"))


def _tell(item: Submission, outcome: Outcome) -> None:
    """Call `done`. A bug in one must not keep the others from their outcomes."""
    try:
        item.done(outcome)
    except Exception:
        logger.exception("answering a message of %s failed", item.draft.sender)


def _key(draft: Draft) -> DedupKey | None:
    client_msg_id = draft.content.client_msg_id
    if client_msg_id is None:
        return None
    return DedupKey(draft.sender, draft.conversation_id, client_msg_id)


def _repeat(draft: Draft, body: bytes) -> Duplicate | Refusal:
    before = read_body(body)
    if says_the_same(before, draft.content):
        return Duplicate(before.id, before.conversation_id, before.seq)
    return Refusal(
        "duplicate_conflict",
        ReasonCode.UNSPECIFIED,
        f"client_msg_id {draft.content.client_msg_id!r} was used with other content (message {before.id})",
    )
