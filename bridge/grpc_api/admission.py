"""Admission control: limits how many calls run and wait at once, and how many streams are open, per user
and in total."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from bridge.core.operations import Caller
from broker.domain.errors import RefusedError

SLOT_BYTES = 64 * 1024
"""Bytes of a request for which it needs one more slot. A request bounds memory only if its size counts:
decoded, JSON takes up to twenty times its bytes."""
_WAITING_PER_SLOT = 16
_SHARE = 4


class Admission:
    """Slots for running calls. A call takes one slot, and one more for each `SLOT_BYTES` of its request.

    A user gets at most a quarter of the slots, and waits for them in a queue of their own: whatever one
    user does, there is room for the others. A queue may hold calls for sixteen times its slots, and a user
    may have `of_user` slots in all, waiting or running; calls beyond that are refused. The system may use
    all slots. `limited` counts how often a limit of the configuration had an effect, by its key.
    """

    def __init__(self, slots: int, of_user: int, limited: Counter[str]) -> None:
        self._most = slots
        self._of_user = of_user
        self._limited = limited
        self._slots = _Slots(slots)
        self._lines: dict[str, _Slots] = {}

    def allow(self, of_user: int) -> None:
        """Change how many slots a user may have."""
        self._of_user = of_user

    @property
    def waiting(self) -> int:
        """How many slots the waiting calls need in total."""
        return self._slots.waiting + sum(line.waiting for line in self._lines.values())

    async def take(
        self, caller: Caller, size: int, ready: Callable[[], Awaitable[None]]
    ) -> Callable[[], None]:
        """Wait for the slots of a request of `size` bytes. Call the result to give them back. While `ready`
        is awaited, the call has a place among those of its user, and takes none of others.

        Raises:
            RefusedError: `overloaded`: too many calls are waiting.
        """
        share = self._most if caller.is_system else max(self._most // _SHARE, 1)
        line = self._lines.setdefault(caller.user, _Slots(share))
        slots = min(1 + size // SLOT_BYTES, share)
        try:
            if limit := self._limit_reached(line, slots, caller, share):
                self._limited[limit] += 1
                raise RefusedError("overloaded", "too many calls at once, try again later")
            await line.take(slots)
            try:
                await ready()
                await self._slots.take(slots)
            except BaseException:
                line.give_back(slots)
                raise
        except BaseException:
            self._forget(caller.user, line)
            raise

        def give_back() -> None:
            self._slots.give_back(slots)
            line.give_back(slots)
            self._forget(caller.user, line)

        return give_back

    def _limit_reached(self, line: "_Slots", slots: int, caller: Caller, share: int) -> str | None:
        """The limit that forbids a call, or None. The system is never kept out by users."""
        # A first call may be larger than the whole share.
        if not caller.is_system and line.taken and line.taken + line.waiting + slots > self._of_user:
            return "calls_per_user"
        if line.waiting + slots > share * _WAITING_PER_SLOT:
            return "rpc_concurrency"
        # The queues of all users together.
        if not caller.is_system and self.waiting + slots > self._most * _WAITING_PER_SLOT:
            return "rpc_concurrency"
        return None

    def _forget(self, user: str, line: "_Slots") -> None:
        if line.is_idle:
            del self._lines[user]


class Streams:
    """Counts the streams that are open: at most `of_user` for each user. `limited` as for `Admission`."""

    def __init__(self, of_user: int, limited: Counter[str]) -> None:
        self._of_user = of_user
        self._limited = limited
        self._open: Counter[str] = Counter()

    def allow(self, of_user: int) -> None:
        """Change how many a user may have. Those that are open stay."""
        self._of_user = of_user

    @contextmanager
    def one(self, caller: Caller) -> Iterator[None]:
        """A stream is open in this context.

        Raises:
            RefusedError: `overloaded`: the user has too many.
        """
        user = caller.user
        if not caller.is_system and self._open[user] >= self._of_user:
            self._limited["calls_per_user"] += 1
            raise RefusedError("overloaded", "too many streams at once, end another one first")
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]


class _Slots:
    """A semaphore of which a call takes several slots at once, in order of arrival. asyncio's own hands
    out one at a time: two calls that need several each could block one another."""

    def __init__(self, slots: int) -> None:
        self._most = slots
        self._free = slots
        self._turns: dict[asyncio.Future[None], int] = {}

    @property
    def waiting(self) -> int:
        return sum(self._turns.values())

    @property
    def taken(self) -> int:
        return self._most - self._free

    @property
    def is_idle(self) -> bool:
        return self._free == self._most and not self._turns

    async def take(self, slots: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._turns[turn] = slots
        self._go_on()
        try:
            await turn
        except BaseException:
            if self._turns.pop(turn, None) is None:  # cancelled after its slots were taken
                self._free += slots
            self._go_on()
            raise

    def give_back(self, slots: int) -> None:
        self._free += slots
        self._go_on()

    def _go_on(self) -> None:
        """Give free slots to the first in the queue, as long as there are enough for it. A small call does
        not overtake a large one, which could else wait for ever."""
        while self._turns:
            turn, slots = next(iter(self._turns.items()))
            if slots > self._free:
                return
            del self._turns[turn]
            self._free -= slots
            if not turn.done():
                turn.set_result(None)
