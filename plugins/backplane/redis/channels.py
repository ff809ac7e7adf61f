"""Hints and mail: what flows between nodes all the time.

A hint goes to the channel `<prefix>t:<topic>`, mail to `<prefix>message:<node>`. A published value is a
version byte and a msgpack value, so that nodes of two neighbouring releases understand each other: fields
are only added. All that one turn of the event loop has to say is written at its end.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from broker.domain.topics import is_wild, matches
from broker.ports import Hint

from .client import RedisOptions
from .wire import Command, Wire

logger = logging.getLogger(__name__)

_VERSION = b"\x01"
_FOLLOW_SECONDS = 1.0
_ALL = "*"


class _Bodies(msgspec.Struct, frozen=True, array_like=True):
    """The hints of one topic."""

    sender: str
    """Of a process: a node that has been started again is another sender."""
    number: int
    """Counts what the sender has published, so that what comes by two filters is taken once."""
    bodies: list[bytes]


class _Letter(msgspec.Struct, frozen=True, omit_defaults=True):
    kind: str
    body: bytes
    question: str = ""
    """An id that the answer repeats."""
    answer: str = ""
    """The id of the question that this answers."""


class _Letters(msgspec.Struct, frozen=True):
    """Mail to one node."""

    node: str
    """Who sends it."""
    batch: list[_Letter]


_encode = msgspec.msgpack.Encoder().encode
_decode_bodies = msgspec.msgpack.Decoder(_Bodies).decode
_decode_letters = msgspec.msgpack.Decoder(_Letters).decode

Answer = Callable[[str, bytes], Awaitable[bytes]]


class Channels:
    """See `broker.ports.Hints` and `broker.ports.Mail`. `freed` is called when a turn may be free, `broken`
    and `returned` when what is published is missed and comes again; `dropped` counts what cannot be sent or
    read."""

    def __init__(
        self,
        options: RedisOptions,
        name: str,
        broken: Callable[[], None],
        returned: Callable[[], None],
        dropped: Counter[str],
    ) -> None:
        self._name = name
        self._sender = secrets.token_hex(8)
        self._topics = (options.prefix + "t:").encode()
        self._nodes = options.prefix + "message:"
        self._on_break = broken
        self._on_return = returned
        self._dropped = dropped
        self._received: Callable[[Hint], None] = lambda _hint: None
        self._reading = Wire(options.url, options.timeout, self._read, self._opened, self._broken)
        self._writing = Wire(options.url, options.timeout, lambda _: None, lambda: None, lambda: None)
        self._filters: set[str] = set()
        self._asked = self._answered = 0
        """How many subscriptions were asked for on this connection, and how many are in effect."""
        self._in_effect = asyncio.Event()
        self._commands: list[Command] = []
        self._hints: dict[str, list[bytes]] = {}
        self._letters: dict[str, list[_Letter]] = {}
        self._is_scheduled = False
        self._number = 0
        self._seen: dict[str, int] = {}
        self._handlers: dict[str, Callable[[str, bytes], None]] = {}
        self._answers: dict[str, Answer] = {}
        self._questions: dict[str, asyncio.Future[bytes]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Connect."""
        self._reading.start()
        self._writing.start()

    async def close(self) -> None:
        """Send what is not sent yet, and disconnect."""
        self._flush()
        for task in self._answering:
            task.cancel()
        await self._reading.close()
        await self._writing.close()

    def on_hint(self, received: Callable[[Hint], None]) -> None:
        """See `Backplane`."""
        self._received = received

    # --- hints ------------------------------------------------------------------------

    def publish(self, hints: Sequence[Hint]) -> None:
        """See `Hints`."""
        for hint in hints:
            self._hints.setdefault(hint.topic, []).append(hint.body)
        self._schedule()

    def follow(self, topic_filter: str) -> None:
        """See `Hints`."""
        self._filters.add(topic_filter)
        self._subscribe([topic_filter])

    def unfollow(self, topic_filter: str) -> None:
        """See `Hints`."""
        self._filters.discard(topic_filter)
        if self._reading.is_open:
            command = "PUNSUBSCRIBE" if is_wild(topic_filter) else "UNSUBSCRIBE"
            self._ask(command, [topic_filter])

    async def followed(self) -> None:
        """See `Hints`."""
        wanted = self._asked
        try:
            async with asyncio.timeout(_FOLLOW_SECONDS):
                while self._answered < wanted:
                    self._in_effect.clear()
                    await self._in_effect.wait()
        except TimeoutError:
            pass  # the sweep finds what is missed

    def _subscribe(self, topic_filters: Sequence[str]) -> None:
        if not self._reading.is_open:
            return  # `_opened` does it
        for command, wild in (("SUBSCRIBE", False), ("PSUBSCRIBE", True)):
            if chosen := [each for each in topic_filters if is_wild(each) is wild]:
                self._ask(command, chosen)

    def _ask(self, command: str, topic_filters: Sequence[str]) -> None:
        # In the order of the calls: a topic may be followed, left and followed again in one turn.
        channels = [self._topics + _pattern(each).encode() for each in topic_filters]
        self._asked += len(channels)
        self._commands.append([command, *channels])
        self._schedule()

    # --- mail -------------------------------------------------------------------------

    def send(self, node: str | None, kind: str, body: bytes) -> None:
        """See `Mail`."""
        self._post(_ALL if node is None else node, _Letter(kind, body))

    async def ask(self, node: str, kind: str, body: bytes, seconds: float) -> bytes | None:
        """See `Mail`."""
        question = secrets.token_hex(8)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._questions[question] = answer
        self._post(node, _Letter(kind, body, question))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._questions[question]

    def on(self, kind: str, received: Callable[[str, bytes], None]) -> None:
        """See `Mail`."""
        self._handlers[kind] = received

    def on_question(self, kind: str, answer: Answer) -> None:
        """See `Mail`."""
        self._answers[kind] = answer

    def _post(self, node: str, letter: _Letter) -> None:
        self._letters.setdefault(node, []).append(letter)
        self._schedule()

    # --- sending ----------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        commands, self._commands = self._commands, []
        if commands and not self._reading.send(*commands):
            self._answered = self._asked  # they are asked for again when the connection is there
        hints, self._hints = self._hints, {}
        letters, self._letters = self._letters, {}
        publishes: list[Command] = []
        for topic, bodies in hints.items():
            self._number += 1
            value = _VERSION + _encode(_Bodies(self._sender, self._number, bodies))
            publishes.append(("PUBLISH", self._topics + topic.encode(), value))
        for node, batch in letters.items():
            publishes.append(("PUBLISH", self._nodes + node, _VERSION + _encode(_Letters(self._name, batch))))
        if publishes and not self._writing.send(*publishes):
            self._dropped["hint_not_sent"] += len(publishes)

    # --- receiving --------------------------------------------------------------------

    def _opened(self) -> None:
        self._asked = self._answered = 0
        own = [self._nodes + self._name, self._nodes + _ALL]
        self._asked += len(own)
        self._reading.send(["SUBSCRIBE", *own])
        self._subscribe(list(self._filters))
        self._on_return()

    def _broken(self) -> None:
        self._answered = self._asked
        self._in_effect.set()
        self._on_break()

    def _read(self, reply: Any) -> None:
        match reply:
            case [b"message", channel, value]:
                self._take(channel, value)
            case [b"pmessage", _, channel, value]:
                self._take(channel, value)
            case [b"subscribe" | b"psubscribe" | b"unsubscribe" | b"punsubscribe", *_]:
                self._answered += 1
                self._in_effect.set()
            case Exception():
                logger.warning("Redis: %s", reply)

    def _take(self, channel: bytes, value: bytes) -> None:
        try:
            if value[:1] != _VERSION:
                self._dropped["hint_of_unknown_version"] += 1
            elif channel.startswith(self._topics):
                self._take_hints(channel[len(self._topics) :].decode(), _decode_bodies(value[1:]))
            else:
                self._take_letters(_decode_letters(value[1:]))
        except msgspec.DecodeError:
            self._dropped["hint_of_unknown_version"] += 1

    def _take_hints(self, topic: str, hints: _Bodies) -> None:
        if hints.sender == self._sender or hints.number <= self._seen.get(hints.sender, 0):
            return
        if topic not in self._filters and not any(
            is_wild(each) and matches(each, topic) for each in self._filters
        ):
            return  # a pattern of Redis matches more than a filter
        self._seen[hints.sender] = hints.number
        for body in hints.bodies:
            try:
                self._received(Hint(topic, body))
            except Exception:
                logger.exception("a hint for %r failed", topic)

    def _take_letters(self, letters: _Letters) -> None:
        if letters.node == self._name:
            return
        for letter in letters.batch:
            try:
                self._take_letter(letters.node, letter)
            except Exception:
                logger.exception("mail of the kind %r from %s failed", letter.kind, letters.node)

    def _take_letter(self, node: str, letter: _Letter) -> None:
        if letter.answer:
            waiting = self._questions.get(letter.answer)
            if waiting is not None and not waiting.done():
                waiting.set_result(letter.body)
        elif letter.question and letter.kind in self._answers:
            task = asyncio.get_running_loop().create_task(self._answer(node, letter))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif letter.kind in self._handlers:
            self._handlers[letter.kind](node, letter.body)
        else:
            self._dropped["mail_of_unknown_kind"] += 1

    async def _answer(self, node: str, letter: _Letter) -> None:
        try:
            body = await self._answers[letter.kind](node, letter.body)
        except Exception as error:
            logger.warning("a question of the kind %r from %s: %s", letter.kind, node, error)
            return
        self._post(node, _Letter(letter.kind, body, answer=letter.question))


_SPECIAL = str.maketrans({each: "\\" + each for each in "*?[]\\"})


def _pattern(topic_filter: str) -> str:
    """The channel of a topic, or the pattern of the channels that a filter with wildcards matches, and
    perhaps of some more. Only a pattern has special characters to escape."""
    if not is_wild(topic_filter):
        return topic_filter
    levels: list[str] = []
    for level in topic_filter.split("/"):
        if level == "#":
            # The level above is matched, too: "a/#" matches "a".
            return "/".join(levels) + "*"
        levels.append("*" if level == "+" else level.translate(_SPECIAL))
    return "/".join(levels)
