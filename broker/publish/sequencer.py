"""Gives every message its id, its seq and count in the conversation, and its offsets in the inboxes.

Sans-IO: it is given the heads of logs and counts on from there. After a failed commit the heads of its logs
are dropped and learned again, so a failed commit leaves no gap.
"""

from collections.abc import Iterable, Mapping, Sequence

from broker.domain.ids import Snowflakes
from broker.domain.message import Count, Draft, Stamped, stamp
from broker.ports.backplane import Head


class Sequencer:
    """Assigns ids, seqs and offsets. `capacity`: the number of logs whose heads are cached."""

    def __init__(self, node: int, capacity: int = 100_000) -> None:
        self._ids = Snowflakes(node)
        self._heads: dict[str, int] = {}
        self._counts: dict[str, Count] = {}
        self._capacity = capacity

    def unknown(self, drafts: Iterable[Draft]) -> list[str]:
        """The logs whose heads must be learned before these drafts can be stamped."""
        heads = self._heads
        if len(heads) > self._capacity:
            heads.clear()
            self._counts.clear()
        missing: dict[str, None] = {}
        for draft in drafts:
            for log in (draft.conversation_id, *draft.logs):
                if log not in heads:
                    missing[log] = None
        return list(missing)

    def learn(self, heads: dict[str, int], counts: dict[str, Count]) -> None:
        """Set the heads of logs and the counts of conversations, as read from the store."""
        self._heads.update(heads)
        self._counts.update(counts)

    def learn_heads(self, heads: Mapping[str, Head]) -> None:
        """Set the heads and counts that other nodes have told."""
        for log, head in heads.items():
            self._heads[log] = head.offset
            self._counts[log] = Count(head.n, head.last)

    def take_heads(self, drafts: Iterable[Draft]) -> dict[str, Head | None]:
        """Forget the heads of these drafts' logs, because other nodes may write them from now on. Returns
        what they were; None for those that are unknown."""
        taken: dict[str, Head | None] = {}
        for draft in drafts:
            for log in (draft.conversation_id, *draft.logs):
                if log not in taken:
                    offset, count = self._heads.pop(log, None), self._counts.pop(log, Count())
                    taken[log] = None if offset is None else Head(offset, count.n, count.last)
        return taken

    def stamp(self, drafts: Sequence[Draft], now_ms: int, growing_ms: int) -> list[Stamped]:
        """Stamp a batch, in its order. The heads of all its logs must be known. The times are those of
        `broker.ports.Clock`."""
        return [self._stamp(draft, now_ms, growing_ms) for draft in drafts]

    def _stamp(self, draft: Draft, now_ms: int, growing_ms: int) -> Stamped:
        heads, where = self._heads, draft.conversation_id
        seq = heads[where] + 1
        heads[where] = seq
        count = self._counts[where] = self._counts[where].after(draft.content.type, seq)
        offsets = []
        for log in draft.logs:
            offset = heads[log] + 1
            heads[log] = offset
            offsets.append(offset)
        return stamp(draft, self._ids.next(growing_ms), seq, tuple(offsets), now_ms, count)

    def forget(self, drafts: Iterable[Draft]) -> None:
        """Drop the heads of these drafts' logs, because their seqs and offsets were not committed."""
        for draft in drafts:
            self._counts.pop(draft.conversation_id, None)
            for log in (draft.conversation_id, *draft.logs):
                self._heads.pop(log, None)
