"""Admits calls: how many run and wait at once, by whose they are and what they cost."""

import asyncio
from collections.abc import Callable

from bridge.core.operations import Caller
from broker.domain.errors import RefusedError

SLOT_BYTES = 64 * 1024
"""Of a request to one slot. JSON takes up to twenty times as much as Python's objects."""
_WAITING_PER_SLOT = 16
_SHARE = 4


class Admission:
    """Slots to run in. A call takes one, and one more for each `SLOT_BYTES` of its request. A user has
    a fourth of the slots at most, and waits for them in a line of their own: whatever one does, there
    is room for others. Sixteen times as many slots as a line has may be waited for in it."""

    def __init__(self, slots: int) -> None:
        self._most = slots
        self._slots = _Slots(slots)
        self._lines: dict[str, _Slots] = {}

    @property
    def waiting(self) -> int:
        """The slots that calls wait for."""
        return self._slots.waiting + sum(line.waiting for line in self._lines.values())

    async def take(self, caller: Caller, size: int) -> Callable[[], None]:
        """Wait for the slots of a request of `size` bytes; call the result to give them back.

        Raises:
            RefusedError: `overloaded`, too many wait.
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
        """Whether all users together wait for too much."""
        return not caller.is_system and self.waiting + slots > self._most * _WAITING_PER_SLOT

    def _forget(self, user: str, line: "_Slots") -> None:
        if line.is_idle:
            del self._lines[user]


class _Slots:
    """A semaphore that is taken by several at once, first come, first served."""

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
            if self._turns.pop(turn, None) is None:  # it was its turn already
                self._free += slots
            self._go_on()
            raise

    def give_back(self, slots: int) -> None:
        self._free += slots
        self._go_on()

    def _go_on(self) -> None:
        """Let in those whose turn it is."""
        while self._turns:
            turn, slots = next(iter(self._turns.items()))
            if slots > self._free:
                return
            del self._turns[turn]
            self._free -= slots
            if not turn.done():
                turn.set_result(None)
