"""The connection that listens to channels."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from .finder import Finder
from .wire import Wire

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 1.0
_AT_ONCE = 1000

Received = Callable[[bytes, bytes, bytes | None], None]
"""Called with a channel, what was published there, and the pattern that has matched, if it was one."""


class Listener:
    """`own` are the channels that are always listened to. `broken` and `returned` are called when what is
    published is missed, and when nothing is missed any more."""

    def __init__(
        self,
        finder: Finder,
        timeout: float,
        own: Sequence[bytes],
        received: Received,
        broken: Callable[[], None],
        returned: Callable[[], None],
    ) -> None:
        self._own = own
        self._received = received
        self._on_break = broken
        self._on_return = returned
        self.wire = Wire(finder, timeout, self._read, self._opened, self._broken)
        self._channels: dict[bytes, None] = {}
        self._patterns: dict[bytes, None] = {}
        self._commands: list[list[bytes]] = []
        self._is_scheduled = False
        self._asked = self._answered = 0
        """How many subscriptions and their ends were asked for, and how many are in effect."""
        self._returning_at: int | None = None
        """So many must be in effect until nothing is missed any more."""
        self._was_open = False
        self._in_effect = asyncio.Event()

    def subscribe(self, channel: bytes, *, is_pattern: bool) -> None:
        """Listen to a channel, or to all that match a pattern, from soon on."""
        (self._patterns if is_pattern else self._channels)[channel] = None
        self._ask(b"PSUBSCRIBE" if is_pattern else b"SUBSCRIBE", channel)

    def unsubscribe(self, channel: bytes, *, is_pattern: bool) -> None:
        """Do not listen any more."""
        (self._patterns if is_pattern else self._channels).pop(channel, None)
        self._ask(b"PUNSUBSCRIBE" if is_pattern else b"UNSUBSCRIBE", channel)

    async def in_effect(self) -> None:
        """Wait until all that was asked for so far is in effect, at most a second. Returns at once without a
        connection."""
        wanted = self._asked
        try:
            async with asyncio.timeout(_FOLLOW_SECONDS):
                while self._answered < wanted:
                    self._in_effect.clear()
                    await self._in_effect.wait()
        except TimeoutError:
            pass  # the sweep finds what is missed

    def _ask(self, command: bytes, channel: bytes) -> None:
        if not self.wire.is_open:
            return  # `_opened` asks for everything
        # In the order of the calls: a topic may be followed, left and followed again in one turn.
        if self._commands and self._commands[-1][0] == command and len(self._commands[-1]) <= _AT_ONCE:
            self._commands[-1].append(channel)
        else:
            self._commands.append([command, channel])
        self._asked += 1
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        commands, self._commands = self._commands, []
        self.wire.send(*commands)  # a connection that cannot take them is lost: `_broken`

    def _opened(self) -> None:
        self._commands = []
        for command, channels in (
            (b"SUBSCRIBE", [*self._own, *self._channels]),
            (b"PSUBSCRIBE", self._patterns),
        ):
            names = list(channels)
            for first in range(0, len(names), _AT_ONCE):
                self.wire.send((command, *names[first : first + _AT_ONCE]))
            self._asked += len(names)
        self._returning_at = self._asked

    def _broken(self) -> None:
        self._commands = []
        self._answered = self._asked
        self._returning_at = None
        self._in_effect.set()
        self._on_break()

    def _read(self, reply: Any) -> None:
        if not isinstance(reply, list):
            logger.warning("Redis: %s", reply)  # a refusal
            return
        kind = reply[0]
        if kind == b"message":
            self._received(reply[1], reply[2], None)
        elif kind == b"pmessage":
            self._received(reply[2], reply[3], reply[1])
        elif kind != b"pong":
            self._answer()

    def _answer(self) -> None:
        self._answered += 1
        self._in_effect.set()
        if self._answered == self._returning_at:
            self._returning_at = None
            was_open, self._was_open = self._was_open, True
            if was_open:
                self._on_return()
