"""The connection that publishes. All that one turn of the event loop has to say is written at its end."""

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from broker.ports import Hint

from .finder import Command, Finder
from .frames import Bodies, Letter, Letters, encode_frame
from .wire import LONGEST_DELAY, Wire

_MOST_KEPT = 16 * 1024 * 1024
"""Bytes of hints that are kept for a Redis that is away."""
_OVERHEAD = 200
_AGAIN_SECONDS = LONGEST_DELAY + 0.2
"""When Redis is back, so long until hints are published: by then all nodes listen again."""


class _Sent(msgspec.Struct, gc=False):
    """A command that Redis has not answered yet."""

    channel: bytes = b""
    """Of hints, which are published again if the connection is lost before the answer."""
    value: bytes = b""
    questions: Sequence[str] = ()
    """Of mail."""


class Publisher:
    """Hints that Redis has not taken are kept, and published when it is there again: all of them in their
    order, or if there are too many, the last of each topic, from which readers see what they have missed.
    Mail is not kept: it might be out of date.

    `dropped` counts what is lost."""

    def __init__(
        self,
        finder: Finder,
        timeout: float,
        prefix: str,
        name: str,
        dropped: Counter[str],
    ) -> None:
        self.sender = secrets.token_hex(8)
        self._name = name
        self._topics = f"{prefix}t:".encode()
        self._nodes = f"{prefix}message:".encode()
        self._dropped = dropped
        self._unheard: Callable[[str], None] = lambda _question: None
        # A cluster's node answers with the number of its own listeners.
        self._counts_all = finder.address.kind != "cluster"
        self.wire = Wire(finder, timeout, self._answered, self._opened, self._broken, self._ping)
        self._hints: dict[str, list[bytes]] = {}
        self._letters: dict[str, list[Letter]] = {}
        self._is_scheduled = False
        self._number = 0
        self._sent: deque[_Sent] = deque()
        self._kept: deque[tuple[bytes, bytes]] = deque()
        self._kept_bytes = 0
        self._is_away = False
        self._announcing: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Send what is not sent yet, and disconnect."""
        self.flush()
        if self._announcing is not None:
            self._announcing.cancel()
        await self.wire.close()

    def on_unheard(self, unheard: Callable[[str], None]) -> None:
        """Call `unheard(question)` for questions that nobody has got."""
        self._unheard = unheard

    def publish(self, hints: Sequence[Hint]) -> None:
        """See `broker.ports.Hints`."""
        for hint in hints:
            self._hints.setdefault(hint.topic, []).append(hint.body)
        self._schedule()

    def post(self, node: str, letter: Letter) -> None:
        """Send a letter to a node."""
        self._letters.setdefault(node, []).append(letter)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write what is to be said."""
        self._is_scheduled = False
        hints, self._hints = self._hints, {}
        letters, self._letters = self._letters, {}
        if hints:
            self._send_hints(hints)
        if letters:
            self._send_letters(letters)

    def _send_hints(self, hints: Mapping[str, list[bytes]]) -> None:
        sent: list[_Sent] = []
        for topic, bodies in hints.items():
            self._number += 1
            value = encode_frame(Bodies(self.sender, self._number, bodies))
            sent.append(_Sent(self._topics + topic.encode(), value))
        commands: list[Command] = [(b"PUBLISH", each.channel, each.value) for each in sent]
        if not self._is_away and self.wire.send(*commands):
            self._sent.extend(sent)
        else:
            self._missed(sent)

    def _send_letters(self, letters: Mapping[str, list[Letter]]) -> None:
        sent: list[_Sent] = []
        commands: list[Command] = []
        for node, batch in letters.items():
            value = encode_frame(Letters(self._name, batch, self.sender))
            commands.append((b"PUBLISH", self._nodes + node.encode(), value))
            sent.append(_Sent(questions=[each.question for each in batch if each.question]))
        if self.wire.send(*commands):
            self._sent.extend(sent)
        else:
            self._missed(sent)

    def _ping(self) -> None:
        if self.wire.send((b"PING",)):
            self._sent.append(_Sent())

    def _answered(self, reply: Any) -> None:
        sent = self._sent.popleft()
        if reply == 0 and self._counts_all:
            for question in sent.questions:
                self._unheard(question)

    # --- while Redis is away ----------------------------------------------------------

    def _missed(self, sent: Sequence[_Sent]) -> None:
        for each in sent:
            if each.channel:
                self._kept.append((each.channel, each.value))
                self._kept_bytes += len(each.channel) + len(each.value) + _OVERHEAD
            else:
                for question in each.questions:
                    self._unheard(question)
        if self._kept_bytes > _MOST_KEPT:
            self._keep_less()

    def _keep_less(self) -> None:
        """Of each topic the last; if that is still too much, of the latest topics only."""
        last: dict[bytes, bytes] = {}
        for channel, value in self._kept:
            last.pop(channel, None)
            last[channel] = value
        kept: deque[tuple[bytes, bytes]] = deque()
        size = 0
        for channel, value in reversed(last.items()):
            size += len(channel) + len(value) + _OVERHEAD
            if size > _MOST_KEPT // 2:
                break
            kept.appendleft((channel, value))
        self._dropped["hint_not_sent"] += len(self._kept) - len(kept)
        self._kept, self._kept_bytes = kept, size

    def _broken(self) -> None:
        self._is_away = True
        unanswered, self._sent = self._sent, deque()
        later, self._kept, self._kept_bytes = self._kept, deque(), 0
        self._missed([*unanswered, *(_Sent(*each) for each in later)])

    def _opened(self) -> None:
        if self._is_away or self._kept:
            self._is_away = True
            if self._announcing is not None:
                self._announcing.cancel()
            self._announcing = asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._announce)

    def _announce(self) -> None:
        if not self.wire.is_open:
            return  # `_opened` follows
        self._is_away = False
        kept, self._kept, self._kept_bytes = self._kept, deque(), 0
        for channel, value in kept:
            self._sent.append(_Sent(channel, value))
        if kept:
            self.wire.send(*((b"PUBLISH", channel, value) for channel, value in kept))
