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

T = TypeVar("T")
Args = TypeVarTuple("Args")

# OWASP's minimum for argon2id (19 MiB, 2 passes, 1 lane): when a node restarts, every device
# reconnects at once, and each costs this much.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

_THREADS = 2
_REMEMBERED = 10_000


class Passwords:
    """Hashes and verifies. A password that was right is remembered, as a digest keyed with a
    secret of this process, so that a device that reconnects is not made to wait again."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        self._key = os.urandom(32)
        self._right: dict[str, bytes] = {}
        self._nobody = _HASHER.hash(os.urandom(16))

    async def hash(self, password: str) -> str:
        """The encoded argon2id hash of a password."""
        return await self._in_thread(_HASHER.hash, password)

    async def verify(self, password: bytes, hashed: str | None) -> bool:
        """Whether the password has this hash. Without a hash (no such user) it takes as long."""
        if hashed is None:
            await self._in_thread(_verify, self._nobody, password)
            return False
        digest = hashlib.blake2b(password, key=self._key, digest_size=32).digest()
        if hmac.compare_digest(self._right.get(hashed, b""), digest):
            return True
        right = await self._in_thread(_verify, hashed, password)
        if right:
            if len(self._right) >= _REMEMBERED:
                self._right.clear()
            self._right[hashed] = digest
        return right

    async def _in_thread(self, function: Callable[[*Args], T], *args: *Args) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _verify(hashed: str, password: bytes) -> bool:
    try:
        return _HASHER.verify(hashed, password)
    except (Argon2Error, InvalidHashError):
        return False
