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

# OWASP's minimum for argon2id (19 MiB, 2 passes, 1 lane): when a node restarts, every device
# reconnects at once, and each costs this much.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_THREADS = 2
_REMEMBERED = 10_000
# What two threads work off in a few seconds: who comes later does better to ask again than to wait
# until its CONNECT has timed out.
_MOST_WAITING = 200


class Passwords:
    """Hashes and verifies; raises `StoreError` when too many wait.

    A password that was right is remembered, as a digest keyed with a secret of this process, so that
    a device that reconnects is not made to wait again."""

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
        """Whether the password of a user has this hash. Without a hash (no such user) it takes as long,
        however many ask at the same time."""
        if hashed is None:
            hashed = self._nobody
        digest = hashlib.blake2b(password, key=self._key, digest_size=32).digest()
        if hmac.compare_digest(self._right.get(hashed, b""), digest):
            return True
        # Devices that bring the same password at the same time wait for one computation. The user is
        # named as nobody's hash is that of all who are not there.
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
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _verify(hashed: str, password: bytes) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False
