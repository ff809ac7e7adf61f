"""Which nodes live.

`<prefix>heartbeat:<node>` holds what a node says of itself, and lapses without renewal. `<prefix>nodes` is
the set of the names, so that a name whose heartbeat has lapsed is noticed. Whoever notices it cleans up,
with a lock that lapses.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import msgspec
from redis.exceptions import RedisError

from broker.domain.errors import StoreError
from broker.ports import Member

from .client import Client
from .mail import RedisMail

logger = logging.getLogger(__name__)

_BEAT_SECONDS = 10.0
_LIFE_SECONDS = 40
_LOOK_SECONDS = 5.0
_SWEEP_SECONDS = 30
"""For how long nobody else cleans up after a node."""
_LONGEST_SWEEP_SECONDS = 300
_SIGN_SECONDS = 1.5
"""A process that lives gives a sign of life within this time."""
_POLL_SECONDS = 0.05

_BEAT = "beat"


class _Heartbeat(msgspec.Struct, frozen=True):
    process: str
    """Which process of this name."""
    beats: int
    member: Member | None = None
    """None while it starts."""


_encode = msgspec.json.encode
_decode_any = msgspec.json.Decoder(_Heartbeat).decode


def _decode(value: bytes | str | None) -> _Heartbeat | None:
    """None: there is none, or another release has written it."""
    try:
        return None if value is None else _decode_any(value)
    except msgspec.DecodeError:
        return None


class RedisMembers:
    """See `broker.ports.Members`. `lost` is called when Redis does not know this node any more: it has been
    emptied, or this process stood still for so long that it counts as gone."""

    def __init__(
        self, client: Client, prefix: str, name: str, mail: RedisMail, lost: Callable[[], None]
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._names = f"{prefix}nodes"
        self._name = name
        self._process = secrets.token_hex(8)
        self._mail = mail
        self._lost = lost
        self._beats = 0
        self._member: Member | None = None
        self._gone: Callable[[str], Awaitable[None]] | None = None
        self._replaced: Callable[[], None] = lambda: None
        self._is_mine = self._is_replaced = False
        self.has_earlier = False
        """Whether an earlier process of this node had not cleaned up after itself."""
        self._tasks: list[asyncio.Task[None]] = []
        self._asked: asyncio.Task[None] | None = None

    async def claim(self) -> None:
        """Take the name. Raises `StoreError` if another process has it, `RedisError`."""
        if not await self._client.set(self._key, self._value(), nx=True, ex=_LIFE_SECONDS):
            await self._wait_for_sign()
            await self._client.set(self._key, self._value(), ex=_LIFE_SECONDS)
        for _ in range(int(_LONGEST_SWEEP_SECONDS / _POLL_SECONDS)):
            if not await self._client.exists(self._lock(self._name)):
                break
            await asyncio.sleep(_POLL_SECONDS)  # another node still cleans up after the earlier process
        self.has_earlier = await self._client.sadd(self._names, self._name) == 0
        self._is_mine = True
        self._mail.on(_BEAT, lambda _node, _body: self._beat_soon())

    async def _wait_for_sign(self) -> None:
        """The heartbeat is there: is the process, too?"""
        before = await self._client.get(self._key)
        self._mail.send(self._name, _BEAT, b"")
        for _ in range(int(_SIGN_SECONDS / _POLL_SECONDS)):
            await asyncio.sleep(_POLL_SECONDS)
            if (now := await self._client.get(self._key)) not in (before, None):
                beat = _decode(now)
                who = "" if beat is None or beat.member is None else _who(beat.member)
                raise StoreError(f"cluster.name: another node is called {self._name!r}{who}")

    def start(self) -> None:
        """Beat and look, again and again."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(_every(_BEAT_SECONDS, self.beat)),
            loop.create_task(_every(_LOOK_SECONDS, self.look)),
        ]

    async def close(self) -> None:
        """This node goes, and has cleaned up after itself."""
        for task in self._tasks:
            task.cancel()
        if self._is_replaced or not self._is_mine:
            return
        try:
            await self._client.srem(self._names, self._name)
            await self._client.delete(self._key)
        except (RedisError, OSError) as error:
            logger.debug("leaving: %s", error)

    async def announce(self, member: Member) -> None:
        """See `Members`."""
        self._member = member
        try:
            if self.has_earlier and self._gone is not None:
                await self._gone(self._name)
                self.has_earlier = False
            await self.beat()
        except (RedisError, OSError) as error:
            logger.debug("announcing this node: %s", error)

    def _beat_soon(self) -> None:
        if self._asked is None or self._asked.done():
            self._asked = asyncio.get_running_loop().create_task(_try(self.beat))

    async def beat(self) -> None:
        """Say that this node lives."""
        before = _decode(await self._client.get(self._key))
        if before is not None and before.process != self._process:
            self._give_up_name()
        if self._is_replaced:
            return
        await self._client.set(self._key, self._value(), ex=_LIFE_SECONDS)
        await self._client.sadd(self._names, self._name)
        if before is None:
            logger.warning("Redis did not know this node any more: it is told everything again")
            self._lost()

    def _give_up_name(self) -> None:
        if not self._is_replaced:
            self._is_replaced = True
            logger.critical("another process has taken the name of this node, %r", self._name)
            self._replaced()

    def _value(self) -> bytes:
        self._beats += 1
        return _encode(_Heartbeat(self._process, self._beats, self._member))

    def on_replaced(self, replaced: Callable[[], None]) -> None:
        """See `Members`."""
        self._replaced = replaced

    async def all(self) -> list[Member] | None:
        """See `Members`."""
        try:
            beats = await self._heartbeats()
        except (RedisError, OSError) as error:
            logger.debug("asking for the nodes: %s", error)
            return None
        return [beat.member for _, value in beats if (beat := _decode(value)) and beat.member]

    async def _heartbeats(self) -> Sequence[tuple[str, bytes | None]]:
        """All names, and what their nodes say, if they live."""
        known = await cast(Awaitable[set[bytes]], self._client.smembers(self._names))
        names = sorted(name.decode() for name in known)
        pipeline = self._client.pipeline(transaction=False)
        for name in names:
            pipeline.get(self._heartbeat(name))
        values = await pipeline.execute() if names else []
        return list(zip(names, values, strict=True))

    def on_gone(self, gone: Callable[[str], Awaitable[None]]) -> None:
        """See `Members`."""
        self._gone = gone

    async def look(self) -> None:
        """Clean up after nodes that have gone."""
        beats = dict(await self._heartbeats())
        if beats.get(self._name) is None:
            await self.beat()
        for name, value in beats.items():
            if value is None and name != self._name:
                await self._sweep(name)

    async def _sweep(self, name: str) -> None:
        lock = self._lock(name)
        if self._gone is None or not await self._client.set(lock, self._process, nx=True, ex=_SWEEP_SECONDS):
            return
        # A node that begins waits while there is the lock.
        if not await self._client.exists(self._heartbeat(name)):
            logger.warning("node %s is gone: cleaning up after it", name)
            cleaning = asyncio.ensure_future(self._gone(name))
            while not cleaning.done():
                await self._client.expire(lock, _SWEEP_SECONDS)
                await asyncio.wait({cleaning}, timeout=_SWEEP_SECONDS / 3)
            cleaning.result()  # if it has failed, another node tries when the lock lapses
            await self._client.srem(self._names, name)
        await self._client.delete(lock)

    @property
    def _key(self) -> str:
        return self._heartbeat(self._name)

    def _heartbeat(self, name: str) -> str:
        return f"{self._prefix}heartbeat:{name}"

    def _lock(self, name: str) -> str:
        return f"{self._prefix}sweep:{name}"


def _who(member: Member) -> str:
    return f" (pid {member.pid} on {member.host})"


async def _try(job: Callable[[], Awaitable[None]]) -> None:
    try:
        await job()
    except (RedisError, OSError) as error:
        logger.debug("Redis: %s", error)
    except Exception:
        logger.exception("a periodic job failed")


async def _every(seconds: float, job: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await _try(job)
