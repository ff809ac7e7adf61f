"""Mail: what is published on the channels `<prefix>message:<node>`; `<prefix>message:*` is for all nodes."""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable

from .frames import FREED_KIND, Letter, decode_letters
from .publisher import Publisher

logger = logging.getLogger(__name__)

ALL = "*"
_MOST_ANSWERED = 10_000
"""Questions that are being answered. More are dropped: whoever asks them gets no answer in time anyway."""

Answer = Callable[[str, bytes], Awaitable[bytes]]


class RedisMail:
    """See `broker.ports.Mail`. `freed` is called when a log is kept for this node; `dropped` counts what is
    lost."""

    def __init__(self, publisher: Publisher, freed: Callable[[], None], dropped: Counter[str]) -> None:
        self._post: Callable[[str, Letter], None] = publisher.post
        self._sender = publisher.sender
        publisher.on_unheard(self._unheard)
        self._freed = freed
        self._dropped = dropped
        self._handlers: dict[str, Callable[[str, bytes], None]] = {}
        self._answers: dict[str, Answer] = {}
        self._questions: dict[str, asyncio.Future[bytes | None]] = {}
        self._answering: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Answer nothing any more."""
        for task in self._answering:
            task.cancel()

    def send(self, node: str | None, kind: str, body: bytes) -> None:
        """See `Mail`."""
        self._post(ALL if node is None else node, Letter(kind, body))

    async def ask(self, node: str, kind: str, body: bytes, seconds: float) -> bytes | None:
        """See `Mail`."""
        question = secrets.token_hex(8)
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._questions[question] = answer
        self._post(node, Letter(kind, body, question))
        try:
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            return None
        finally:
            del self._questions[question]

    def _unheard(self, question: str) -> None:
        waiting = self._questions.get(question)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def on(self, kind: str, received: Callable[[str, bytes], None]) -> None:
        """See `Mail`."""
        self._handlers[kind] = received

    def on_question(self, kind: str, answer: Answer) -> None:
        """See `Mail`."""
        self._answers[kind] = answer

    def take(self, value: bytes) -> None:
        """Something was published for this node."""
        letters = decode_letters(value)
        if letters is None:
            self._dropped["mail_unreadable"] += 1
        elif letters.sender != self._sender:
            for letter in letters.batch:
                try:
                    self._take(letters.node, letter)
                except Exception:
                    logger.exception("mail of the kind %r from %s failed", letter.kind, letters.node)

    def _take(self, node: str, letter: Letter) -> None:
        if letter.kind == FREED_KIND:
            self._freed()
        elif letter.answer:
            waiting = self._questions.get(letter.answer)
            if waiting is not None and not waiting.done():
                waiting.set_result(letter.body)
        elif letter.question and letter.kind in self._answers:
            self._answer_soon(node, letter)
        elif letter.kind in self._handlers:
            self._handlers[letter.kind](node, letter.body)
        else:
            self._dropped["mail_of_unknown_kind"] += 1

    def _answer_soon(self, node: str, letter: Letter) -> None:
        if len(self._answering) >= _MOST_ANSWERED:
            self._dropped["mail_not_answered"] += 1
            return
        task = asyncio.get_running_loop().create_task(self._answer(node, letter))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, node: str, letter: Letter) -> None:
        try:
            body = await self._answers[letter.kind](node, letter.body)
        except Exception as error:
            logger.warning("a question of the kind %r from %s: %s", letter.kind, node, error)
            return
        self._post(node, Letter(letter.kind, body, answer=letter.question))
