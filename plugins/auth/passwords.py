"""Password hashes: argon2id, computed off the event loop, in turns over the addresses that ask."""

import asyncio
import hashlib
import hmac
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from broker.domain.errors import StoreError
from broker.domain.lines import Lines

# OWASP's minimum for argon2id: 19 MiB, 2 passes, 1 lane. No more, because all devices reconnect at
# once when a node restarts, and each password costs this much.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_THREADS = 2
_REMEMBERED = 10_000
# Two threads work off this many in a few seconds. A client behind them should try again: it would wait
# longer than its CONNECT may take.
_MOST_WAITING = 200
_MOST_SECONDS = 6.0

_OWN_LINE = ""
"""The queue of new passwords: administration and registration."""

Told = Callable[[bool], None]
"""Told whether the password was right."""
Admit = Callable[[], Told]
"""Called when an attempt's turn has come. What it raises is the result, and nothing is computed."""


def _uncounted() -> Told:
    return lambda _: None


class _Job(msgspec.Struct):
    """A computation that waits for its turn."""

    compute: Callable[[], Any]
    admit: Admit
    answer: asyncio.Future[Any]


class Passwords:
    """Hashes and verifies passwords. Both raise `StoreError` when too many are waiting.

    Each address waits in a line of its own, and the lines are served in turns: however many passwords one
    address sends, others wait for the computations that are running and for one of that address.

    Correct passwords are cached, so a device that reconnects does not wait for argon2 again. The cache
    holds digests keyed with a secret of this process, never the passwords."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        self._key = os.urandom(32)
        self._right: dict[str, bytes] = {}
        self._asked: dict[tuple[str, str, str, bytes], asyncio.Future[bool]] = {}
        self._lines: Lines[_Job] = Lines(_MOST_WAITING)
        self._running = 0
        self._nobody = _HASHER.hash(os.urandom(16))

    async def hash(self, password: str) -> str:
        """The encoded argon2id hash of a password."""
        return str(await self._in_turn(_OWN_LINE, _uncounted, partial(_HASHER.hash, password)))

    def is_known(self, password: bytes, hashed: str | None) -> bool:
        """Whether `password` was found to have this hash before."""
        return hmac.compare_digest(self._right.get(hashed or self._nobody, b""), self._digest(password))

    async def verify(
        self,
        password: bytes,
        hashed: str | None,
        user: str = "",
        line: str = "",
        admit: Admit = _uncounted,
    ) -> bool:
        """Whether `password` has this hash. `line` is the queue to wait in.

        None (no such user) is checked against a dummy hash and takes as long, also when many ask at the
        same time: the time does not reveal which user ids exist.

        Raises:
            StoreError: too many passwords are waiting.
            Exception: what `admit` raised.
        """
        if self.is_known(password, hashed):
            return True
        if hashed is None:
            hashed = self._nobody
        digest = self._digest(password)
        # Devices that send the same password at the same time share one computation. The key names the
        # user because unknown users share one dummy hash: they must not share a computation, or asking
        # for several at once would be faster than for known users. It names the line because an address
        # must not wait in the line of another.
        key = (line, user, hashed, digest)
        asked = self._asked.get(key)
        if asked is None:
            compute = partial(_verify, hashed, password)
            asked = asyncio.ensure_future(self._in_turn(line, admit, compute))
            self._asked[key] = asked
            asked.add_done_callback(partial(self._forget, key))
        try:
            async with asyncio.timeout(_MOST_SECONDS):
                right = await asyncio.shield(asked)
        except TimeoutError:
            raise _too_many() from None
        if right:
            if len(self._right) >= _REMEMBERED:
                self._right.clear()
            self._right[hashed] = digest
        return right

    def _digest(self, password: bytes) -> bytes:
        return hashlib.blake2b(password, key=self._key, digest_size=32).digest()

    def _forget(self, key: tuple[str, str, str, bytes], asked: asyncio.Future[bool]) -> None:
        self._asked.pop(key, None)
        if not asked.cancelled():
            asked.exception()  # marks it as seen: perhaps nobody waits for it any more

    # --- turns -----------------------------------------------------------------------

    async def _in_turn(self, line: str, admit: Admit, compute: Callable[[], Any]) -> Any:
        job = _Job(compute, admit, asyncio.get_running_loop().create_future())
        displaced = self._lines.put(line, job)
        if displaced is not None and not displaced.answer.done():
            displaced.answer.set_exception(_too_many())
        self._go_on()
        return await job.answer

    def _go_on(self) -> None:
        while self._running < _THREADS and (job := self._lines.take()) is not None:
            if job.answer.done():
                continue  # nobody waits for it any more
            try:
                told = job.admit()
            except Exception as error:
                job.answer.set_exception(error)
                continue
            running = asyncio.get_running_loop().run_in_executor(self._threads, job.compute)
            self._running += 1
            running.add_done_callback(partial(self._done, job, told))

    def _done(self, job: _Job, told: Told, running: asyncio.Future[Any]) -> None:
        self._running -= 1
        if running.cancelled():
            job.answer.cancel()
        elif (error := running.exception()) is not None:
            if not job.answer.done():
                job.answer.set_exception(error)
        else:
            told(running.result() is True)
            if not job.answer.done():
                job.answer.set_result(running.result())
        self._go_on()

    def close(self) -> None:
        """Stop the threads. Waiting computations are cancelled."""
        while (job := self._lines.take()) is not None:
            job.answer.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _too_many() -> StoreError:
    return StoreError("too many passwords to verify at once, try again later")


def _verify(hashed: str, password: bytes) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False
