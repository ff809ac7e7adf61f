"""Stamps messages and commits them, many in one commit."""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter

import msgspec

from broker.domain.conversation import is_conversation
from broker.domain.errors import (
    DuplicateMessageError,
    ReasonCode,
    Refusal,
    StoreError,
    StoreUnavailableError,
)
from broker.domain.message import Draft, Stamped, read_body, says_the_same
from broker.group_commit import GroupCommit
from broker.outage import Outage
from broker.ports import Clock, DedupKey, Head, MessageLog, Turns
from broker.publish.sequencer import Sequencer
from broker.publish.taking_turns import TakingTurns

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_ATTEMPTS_OF_NODES = 20
"""As long as nobody knows whose turn it is, several nodes write the same logs."""
_LONGEST_PAUSE = 0.1
_RETRY_SECONDS = 0.5
_OVERHEAD = 512
"""The memory of a submission beside its content, in bytes."""

_MESSAGES = "messages"
_PUSHED_AT_ONCE = 16
_DELIVERIES_AT_ONCE = 1000
_MOST_UNPUSHED = 10_000
_MOST_UNPUSHED_BYTES = 64 * 1024 * 1024


class Duplicate(msgspec.Struct, frozen=True):
    """The message was stored before, with this id and seq."""

    id: str
    conversation_id: str
    seq: int


Outcome = Stamped | Duplicate | Refusal | StoreError
"""The result of a draft: stored now, stored before, refused, or not stored."""


class Submission(msgspec.Struct, frozen=True, gc=False):
    """A draft on its way to the store. `done` is called with its outcome, once. `patient`: while the store
    cannot commit, it waits; otherwise its outcome is the error at once."""

    draft: Draft
    done: Callable[[Outcome], None]
    patient: bool = True


class _InTurns:
    """Batches are filled in turns over the senders, see `group_commit.Turns`."""

    owner = staticmethod(attrgetter("draft.sender"))
    _bodies = attrgetter("draft.content.content")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes

    @classmethod
    def size(cls, items: Iterable[Submission]) -> int:
        return sum(map(len, map(cls._bodies, items)))


class _Ledger:
    """See `taking_turns.Ledger`."""

    def __init__(self, sequencer: Sequencer) -> None:
        self._sequencer = sequencer
        self.learn_heads = sequencer.learn_heads

    @staticmethod
    def logs(item: Submission) -> Sequence[str]:
        return (item.draft.conversation_id, *item.draft.logs)

    def take_heads(self, items: Iterable[Submission]) -> dict[str, Head | None]:
        return self._sequencer.take_heads(item.draft for item in items)


class MessageCommitter:
    """Stamps and commits drafts, acknowledges them, then pushes them to readers.

    Nothing is acknowledged or pushed before it is fsynced. `publish` is called for each stored message, in
    the order of the log, after the `done` of the whole batch. Messages with very many readers are pushed
    bit by bit, while the next batch is committed: `delivered` counts the readers that were reached so far,
    and `busy` is called with True when it begins, and with False when all are pushed.

    While the store cannot commit, submissions are held, at most `most_held` bytes of them, and committed in
    their order as soon as it can. `turns`: those of a cluster's nodes; None if no other node writes.
    """

    def __init__(
        self,
        log: MessageLog,
        sequencer: Sequencer,
        clock: Clock,
        publish: Callable[[Stamped], None],
        max_batch: int,
        outage: Outage,
        most_held: int,
        limited: Counter[str],
        max_batch_bytes: int = 1 << 19,
        delivered: Callable[[], int] = lambda: 0,
        busy: Callable[[bool], None] = lambda _: None,
        turns: Turns | None = None,
    ) -> None:
        self._log = log
        self._sequencer = sequencer
        self._clock = clock
        self._publish = publish
        self._max_batch = max_batch
        self._outage = outage
        self._most_held = most_held
        self._limited = limited
        self._held: list[Submission] = []
        self._held_bytes = 0
        self._closing = asyncio.Event()
        self._delivered = delivered
        self._busy = busy
        self._unpushed: deque[Stamped] = deque()
        self._all_pushed = asyncio.Event()
        self._all_pushed.set()
        self._group = GroupCommit(self._commit, max_batch, _InTurns(max_batch_bytes))
        self.submit: Callable[[Submission], None] = self._group.submit
        self._store: Callable[[list[Submission]], Awaitable[None]] = self._store_all
        self._is_shared = turns is not None
        if turns is not None:
            ledger = _Ledger(sequencer)
            self._store = TakingTurns(turns, ledger, self._store_all, self._group.next_batch).store

    def __len__(self) -> int:
        return len(self._group) + len(self._held)

    async def drain(self) -> None:
        """Wait until all submissions have their outcomes. What the store cannot commit now is given up."""
        self._closing.set()
        await self._group.drain()
        await self._all_pushed.wait()

    # --- while the store cannot commit -----------------------------------------------

    async def _commit(self, batch: list[Submission]) -> None:
        if self._unpushed and self._is_far_behind():
            await self._all_pushed.wait()
        try:
            await self._store(batch)
        except StoreUnavailableError as error:
            self.submit = partial(self._hold, error)
            try:
                await self._store_later([*batch, *self._group.take()], error)
            finally:
                self.submit = self._group.submit

    async def _store_later(self, submissions: list[Submission], error: StoreUnavailableError) -> None:
        for item in submissions:
            self._hold(error, item)
        while self._held and not self._closing.is_set():
            self._outage.failed(_MESSAGES, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _RETRY_SECONDS)
            batch = self._held[: self._max_batch]
            tried = len(batch)
            try:
                await self._store(batch)
            except StoreUnavailableError as again:
                error = again
                self._held[:tried] = batch  # without those that are answered meanwhile
                self._held_bytes = sum(map(_size, self._held))
            else:
                self._outage.recovered(_MESSAGES)
                # The rest is committed as usual, before all that is submitted from now on.
                for item in self._release()[tried:]:
                    self._group.submit(item)
        if given_up := self._release():
            self._fail(given_up, error)

    def _release(self) -> list[Submission]:
        """What is held. Nothing is held any more."""
        released, self._held, self._held_bytes = self._held, [], 0
        return released

    def _hold(self, error: StoreUnavailableError, item: Submission) -> None:
        size = _size(item)
        if item.patient and self._held_bytes + size <= self._most_held:
            self._held.append(item)
            self._held_bytes += size
            return
        if item.patient:
            self._limited["held_bytes"] += 1
        _tell(item, error)

    # --- a batch ---------------------------------------------------------------------

    async def _store_all(self, batch: list[Submission]) -> None:
        """Commit a batch. Raises `StoreUnavailableError`: the batch may be tried again."""
        try:
            stamped = await self._append([item.draft for item in batch])
        except DuplicateMessageError:
            await self._commit_again(batch)
        except StoreUnavailableError:
            raise
        except Exception as error:  # `append` commits all or nothing, so nothing was stored
            self._fail(batch, error)
        else:
            self._succeed(batch, stamped)

    async def _append(self, drafts: Sequence[Draft]) -> list[Stamped]:
        sequencer = self._sequencer
        try:
            if unknown := sequencer.unknown(drafts):
                # In this order: if another node writes in between, the offsets are taken. Counts older
                # than the heads would be stored.
                heads = await self._log.heads(unknown)
                sequencer.learn(heads, await self._log.counts(list(filter(is_conversation, unknown))))
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
        if not stamped:
            return
        is_pushing = bool(self._unpushed)
        self._unpushed.extend(stamped)
        if not is_pushing:
            self._push()

    def _is_far_behind(self) -> bool:
        """Whether too much waits to be pushed."""
        unpushed = self._unpushed
        return (
            len(unpushed) > _MOST_UNPUSHED
            or sum(len(message.body) for message in unpushed) > _MOST_UNPUSHED_BYTES
        )

    def _push(self) -> None:
        """Push what is stored, in its order. After very many deliveries the event loop has its turn."""
        unpushed, most = self._unpushed, self._delivered() + _DELIVERIES_AT_ONCE
        at_once = 1  # until it is known how many readers they have
        while unpushed:
            for _ in range(min(at_once, len(unpushed))):
                message = unpushed.popleft()
                try:
                    self._publish(message)
                except Exception:
                    # The message is stored: readers find it in the log.
                    logger.exception("pushing a message of %s failed", message.draft.conversation_id)
            at_once = min(2 * at_once, _PUSHED_AT_ONCE)
            if self._delivered() >= most and unpushed:
                if self._all_pushed.is_set():
                    self._all_pushed.clear()
                    self._busy(True)
                asyncio.get_running_loop().call_soon(self._push)
                return
        if not self._all_pushed.is_set():
            self._all_pushed.set()
            self._busy(False)

    def _fail(self, batch: Sequence[Submission], error: Exception) -> None:
        logger.error("commit of %d messages failed, none acknowledged: %s", len(batch), error)
        failure = error if isinstance(error, StoreError) else StoreError(repr(error))
        for item in batch:
            _tell(item, failure)

    async def _commit_again(self, batch: list[Submission]) -> None:
        """Some idempotency keys or offsets of the batch are stored: find out which keys, and commit the rest.

        Looking up every key before each commit would cost all messages a query. A repeated
        `client_msg_id` is rare, so only a batch that holds one pays for it.
        """
        for attempt in range(_ATTEMPTS_OF_NODES if self._is_shared else _ATTEMPTS):
            if attempt and self._is_shared:
                await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE))  # noqa: S311 - no secret
            try:
                await self._commit_fresh(batch)
            except DuplicateMessageError:
                continue
            except StoreUnavailableError:
                raise
            except Exception as error:
                self._fail(batch, error)
            return
        taken = "the ids or offsets of a batch were taken again and again"
        if self._is_shared:
            # Other nodes are faster. To fail would let later messages of the same senders overtake these.
            raise StoreUnavailableError(taken)
        self._fail(batch, StoreError(taken))

    async def _commit_fresh(self, batch: list[Submission]) -> None:
        """Commit what is not stored yet, and answer all of the batch. Raises as `MessageLog.append`."""
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
        stored = await self._log.find(list(first))
        fresh = [item for item in fresh if _key(item.draft) not in stored]
        stamped = await self._append([item.draft for item in fresh])
        for key, item in first.items():
            if key in stored:
                _tell(item, _repeat(item.draft, stored[key]))
        self._succeed(fresh, stamped)
        bodies = {key: message.body for message in stamped if (key := _key(message.draft))}
        for item, key in repeated:
            _tell(item, _repeat(item.draft, stored.get(key) or bodies[key]))


def _tell(item: Submission, outcome: Outcome) -> None:
    """Call `done`. A bug in one must not keep the others from their outcomes."""
    try:
        item.done(outcome)
    except Exception:
        logger.exception("answering a message of %s failed", item.draft.sender)


def _size(item: Submission) -> int:
    return len(bytes(item.draft.content.content)) + _OVERHEAD


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
