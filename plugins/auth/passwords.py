"""Password hashes: argon2id, computed off the event loop."""

import asyncio
import hashlib
import hmac
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from broker.domain.errors import StoreError

T = TypeVar("T")
Args = TypeVarTuple("Args")

# OWASP's minimum for argon2id: 19 MiB, 2 passes, 1 lane. No more, because all devices reconnect at
# once when a node restarts, and each password costs this much.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_THREADS = 2
_REMEMBERED = 10_000
# Two threads work off this many in a few seconds. A client behind them should try again: it would wait
# longer than its CONNECT may take.
_MOST_WAITING = 200


class Passwords:
    """Hashes and verifies passwords. Both raise `StoreError` when too many are waiting.

    Correct passwords are cached, so a device that reconnects does not wait for argon2 again. The cache
    holds digests keyed with a secret of this process, never the passwords."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        self._key = os.urandom(32)
        self._right: dict[str, bytes] = {}
        self._asked: dict[tuple[str, str, bytes], asyncio.Future[bool]] = {}
        self._waiting = 0
        self._nobody = _HASHER.hash(os.urandom(16))

    async def hash(self, password: str) -> str:
        """The encoded argon2id hash of a password."""
        return await self._in_thread(_HASHER.hash, password)

    async def verify(self, password: bytes, hashed: str | None, user: str = "") -> bool:
        """Whether `password` has this hash.

        None (no such user) is checked against a dummy hash and takes as long, also when many ask at the
        same time: the time does not reveal which user ids exist."""
        if hashed is None:
            hashed = self._nobody
        digest = hashlib.blake2b(password, key=self._key, digest_size=32).digest()
        if hmac.compare_digest(self._right.get(hashed, b""), digest):
            return True
        # Devices that send the same password at the same time share one computation. The key names the
        # user because unknown users share one dummy hash: they must not share a computation, or asking
        # for several at once would be faster than for known users.
        key = (user, hashed, digest)
        asked = self._asked.get(key)
        if asked is None:
            asked = asyncio.ensure_future(self._in_thread(_verify, hashed, password))
            self._asked[key] = asked
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
        right = await asyncio.shield(asked)
        if right:
            if len(self._right) >= _REMEMBERED:
                self._right.clear()
            self._right[hashed] = digest
        return right

    async def _in_thread(self, function: Callable[[*Args], T], *args: *Args) -> T:
        if self._waiting >= _MOST_WAITING:
            raise StoreError("too many passwords to verify at once, try again later")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop the threads. Waiting computations are cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _verify(hashed: str, password: bytes) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False
