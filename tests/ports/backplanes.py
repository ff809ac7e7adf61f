"""Backplanes of several nodes on one Redis."""

import asyncio
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from uuid import uuid4

import msgspec

from broker.ports import Hint
from plugins.backplane.redis import RedisBackplane, RedisOptions, open_backplane
from tests.servers.redis import server_url


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something holds."""
    for _ in range(int(seconds * 200)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to that")


class Ends:
    """What a backplane has told: received hints, mail, breaks and returns."""

    def __init__(self, backplane: RedisBackplane) -> None:
        self.hints: list[Hint] = []
        self.mail: list[tuple[str, bytes]] = []
        self.story: list[str] = []
        backplane.on_hint(self.hints.append)
        backplane.on_break(lambda: self.story.append("broken"))
        backplane.on_return(lambda: self.story.append("returned"))
        backplane.mail.on("note", lambda node, body: self.mail.append((node, body)))

    @property
    def bodies(self) -> list[bytes]:
        return [hint.body for hint in self.hints]


class Nodes:
    """Opens backplanes with one prefix, and closes them at the end."""

    def __init__(self, url: str = "", **options: object) -> None:
        base = RedisOptions(url or server_url(), prefix=f"test-{uuid4().hex}:", timeout=5.0)
        self.options: RedisOptions = msgspec.structs.replace(base, **options)
        self.dropped: dict[str, Counter[str]] = {}
        self.ends: dict[str, Ends] = {}
        self.opened: list[RedisBackplane] = []

    async def open(self, name: str) -> RedisBackplane:
        dropped = self.dropped[name] = Counter()
        backplane = await open_backplane(self.options, name, dropped)
        self.opened.append(backplane)
        self.ends[name] = Ends(backplane)
        return backplane

    async def __aenter__(self) -> "Nodes":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for backplane in self.opened:
            await backplane.close()
