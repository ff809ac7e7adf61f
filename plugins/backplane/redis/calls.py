"""Commands with answers, over one connection: they take effect in the order of the calls."""

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .finder import Command, Finder
from .scripts import script
from .wire import Wire

logger = logging.getLogger(__name__)

_ELSEWHERE = ("MOVED", "ASK", "READONLY", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "NOSCRIPT", "TRYAGAIN")
"""Errors of a server that is not, or not yet, the right one. The connection is made again."""


class AwayError(OSError):
    """Redis cannot be reached, or the connection was lost before the answer."""


def _sha(text: str) -> str:
    """What Redis calls a script."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Calls:
    """`scripts`: the names of those that are run. `opened` is called when the connection is there, and there
    again."""

    def __init__(
        self,
        finder: Finder,
        timeout: float,
        scripts: Sequence[str] = (),
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        texts = {name: script(name) for name in scripts}
        self._sha = {name: _sha(text) for name, text in texts.items()}
        self._waiting: deque[asyncio.Future[Any] | None] = deque()
        self._last_error = ""
        greeting = [["SCRIPT", "LOAD", text] for text in texts.values()]
        self.wire = Wire(finder, timeout, self._received, opened, self._broken, self._ping, greeting)

    def run(self, name: str, key: str, *arguments: bytes | str) -> asyncio.Future[Any]:
        """Run a script on one key. See `call`."""
        return self.call("EVALSHA", self._sha[name], "1", key, *arguments)

    def call(self, *command: bytes | str) -> asyncio.Future[Any]:
        """The answer. It is an `AwayError` if Redis cannot be reached, or the error that Redis has
        answered, as an `OSError`, too."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.wire.send(command):
            self._waiting.append(answer)
        else:
            answer.set_exception(AwayError(f"no connection to Redis: {self.wire.error}"))
        return answer

    def tell(self, name: str, key: str, *arguments: bytes | str) -> None:
        """Run a script on one key, if that is possible now. Nobody waits for the answer."""
        if self.wire.send(("EVALSHA", self._sha[name], "1", key, *arguments)):
            self._waiting.append(None)

    def _ping(self) -> None:
        command: Command = ("PING",)
        if self.wire.send(command):
            self._waiting.append(None)

    def _received(self, reply: Any) -> None:
        answer = self._waiting.popleft()
        if isinstance(reply, Exception):
            self._failed(str(reply))
            reply = AwayError(str(reply))
        if answer is None or answer.done():
            return
        if isinstance(reply, Exception):
            answer.set_exception(reply)
        else:
            answer.set_result(reply)

    def _failed(self, error: str) -> None:
        if error != self._last_error:  # the same trouble may come with every command
            self._last_error = error
            logger.warning("Redis: %s", error)
        if error.startswith(_ELSEWHERE):
            self.wire.give_up()

    def _broken(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            if answer is not None and not answer.done():
                answer.set_exception(AwayError("the connection to Redis is lost"))
