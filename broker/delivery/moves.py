"""Messages of open topics with QoS 1 and 2, for sessions that move between nodes.

Entries of logs need nothing here: a session reads them from its cursor, wherever it is. A message of an open
topic is in no log. The law by which none is lost, and none comes twice:

1. A session has an epoch, which each claim raises by one (`StateStore.claim`). An epoch has one holder, the
   node that claimed it.
2. While a session is connected, messages come to its holder as hints.
3. A node that knows that a session is away queues messages under its last epoch. It is told so when the
   state is in the store, because storing the state replaces the queue.
4. Until all nodes have confirmed that they know, the holder lingers: it follows the topics of the session and
   queues what it gets as hints.
5. What cannot be queued because the epoch has passed is missed. It goes to the holder of the next epoch, who
   sends it if the session is connected there, and else queues it under that epoch.
6. A message has an id, and who holds an epoch takes each id once: from the queue that it claimed, from hints,
   or as missed. So 4 and 5 may happen together.

A holder that dies takes with it what it had not stored, and what comes until its death is noticed."""

from collections.abc import Callable, Iterable

from broker.ports import QueuedMessage, SessionKey

_MEMORY_MS = 10_000
"""For how long after a claim the ids are remembered. Other nodes know of the claim by then."""


class _Held:
    """An epoch of a session that this node has claimed."""

    __slots__ = ("seen", "until")

    def __init__(self, seen: set[int], until: int) -> None:
        self.seen = seen
        self.until = until


class Moves:
    """What a node remembers of sessions that have moved. `first_id`: unlike those of other nodes."""

    def __init__(self, now_ms: Callable[[], int], first_id: int) -> None:
        self._now_ms = now_ms
        self._last_id = first_id
        self._held: dict[tuple[SessionKey, int], _Held] = {}
        """In the order of the claims."""
        self._newest: dict[SessionKey, int] = {}
        """Session -> the last epoch that was claimed here."""
        self.lingering: dict[SessionKey, int] = {}
        """Session -> how many of its connections have ended here that not all nodes know of."""

    def next_id(self) -> int:
        """The id of a new message."""
        self._last_id += 1
        return self._last_id

    @property
    def is_empty(self) -> bool:
        """Whether all that comes is new."""
        return not self._newest

    def claimed(self, key: SessionKey, epoch: int, queue: Iterable[QueuedMessage]) -> list[QueuedMessage]:
        """This node has claimed a session with this queue. Returns the queue with each id once."""
        now, seen, once = self._now_ms(), set[int](), []
        self._forget(now)
        for message in queue:
            if not message.id or message.id not in seen:
                seen.add(message.id)
                once.append(message)
        self._held[key, epoch] = _Held(seen, now + _MEMORY_MS)
        self._newest[key] = epoch
        return once

    def is_new(self, key: SessionKey, message_id: int) -> bool:
        """A message has come for a session that is connected here. Returns whether it has not come before."""
        epoch = self._newest.get(key)
        return epoch is None or self.takes(key, epoch, message_id)

    def takes(self, key: SessionKey, epoch: int, message_id: int) -> bool:
        """Whether this node holds an epoch, and a message is new to it."""
        held = self._held.get((key, epoch))
        if held is None:
            return False
        if message_id in held.seen:
            return False
        if held.until > self._now_ms():
            held.seen.add(message_id)
        return True

    def linger(self, key: SessionKey) -> None:
        """A connection of a session ends here."""
        self.lingering[key] = self.lingering.get(key, 0) + 1

    def known(self, key: SessionKey) -> None:
        """All nodes know that it has ended."""
        left = self.lingering.pop(key) - 1
        if left:
            self.lingering[key] = left

    def _forget(self, now: int) -> None:
        for (key, epoch), held in list(self._held.items()):
            if held.until > now:
                break
            if key in self.lingering:
                continue
            del self._held[key, epoch]
            if self._newest.get(key) == epoch:
                del self._newest[key]
