"""Admission control: limits how many calls run and wait at once, per user and in total."""

import asyncio
from collections.abc import Callable

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
    user does, there is room for the others. A queue may hold calls for sixteen times its slots; calls
    beyond that are refused. The system may use all slots.
    """

    def __init__(self, slots: int) -> None:
        self._most = slots
        self._slots = _Slots(slots)
        self._lines: dict[str, _Slots] = {}

    @property
    def waiting(self) -> int:
        """How many slots the waiting calls need in total."""
        return self._slots.waiting + sum(line.waiting for line in self._lines.values())

    async def take(self, caller: Caller, size: int) -> Callable[[], None]:
        """Wait for the slots of a request of `size` bytes. Call the result to give them back.

        Raises:
            RefusedError: `overloaded`: too many calls are waiting.
        """
        share = self._most if caller.is_system else max(self._most // _SHARE, 1)
        line = self._lines.setdefault(caller.user, _Slots(share))
        slots = min(1 + size // SLOT_BYTES, share)
        try:
            if line.waiting + slots > share * _WAITING_PER_SLOT or self._is_full(slots, caller):
                raise RefusedError("overloaded", "too many calls at once, try again later")
            await line.take(slots)
            try:
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

    def _is_full(self, slots: int, caller: Caller) -> bool:
        """Whether the queues of all users together are full. The system is never kept out by users."""
        return not caller.is_system and self.waiting + slots > self._most * _WAITING_PER_SLOT

    def _forget(self, user: str, line: "_Slots") -> None:
        if line.is_idle:
            del self._lines[user]


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
