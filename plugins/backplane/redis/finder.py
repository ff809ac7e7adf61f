"""Finds the server to connect to: the only one, the master that the sentinels name, or the node of a cluster
that has a key."""

import asyncio
import secrets
import ssl
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from .options import Address, RedisOptions, parse_url, tls_context

Command = Sequence[bytes | str]
Place = tuple[str, int]


def pack(command: Command) -> bytes:
    """The bytes of a command."""
    return cast(bytes, hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]  # of any length


class Finder:
    """Finds the server for the slot of `key`; without a key, any that is connected to all others.

    Raises `ValueError` for a URL that says nothing, `OSError` for a CA file that cannot be read."""

    def __init__(self, options: RedisOptions, key: str = "") -> None:
        self.address: Address = parse_url(options.url)
        self.tls: ssl.SSLContext | None = tls_context(self.address, options)
        self._options = options
        self._key = key
        self._known: list[Place] = list(self.address.hosts)

    async def find(self) -> Place:
        """Raises `OSError` if no server says where it is."""
        if self.address.kind == "single":
            return self.address.hosts[0]
        errors: list[str] = []
        for place in _shuffled(self._known):
            try:
                async with asyncio.timeout(self._options.timeout):
                    return await (self._of_sentinel(place) if self.moves else self._of_cluster(place))
            except (OSError, TimeoutError, hiredis.HiredisError) as error:
                errors.append(f"{place[0]}:{place[1]}: {error or 'no answer in time'}")
        raise ConnectionError("; ".join(errors))

    @property
    def moves(self) -> bool:
        """Whether another server may become the right one while this one still answers."""
        return self.address.kind == "sentinel"

    def greeting(self) -> list[Command]:
        """What a new connection begins with."""
        address = self.address
        commands = _auth(address.user, address.password)
        if address.database:
            commands.append(["SELECT", str(address.database)])
        return [*commands, ["ROLE"] if self.moves else ["PING"]]

    async def _of_sentinel(self, place: Place) -> Place:
        *_, found = await self._ask(
            place,
            [
                *_auth("", self._options.sentinel_password),
                ["SENTINEL", "get-master-addr-by-name", self.address.service],
            ],
        )
        if found is None:
            raise ConnectionError(f"this sentinel knows no service {self.address.service!r}")
        return found[0].decode(), int(found[1])

    async def _of_cluster(self, place: Place) -> Place:
        commands: list[Command] = [
            *_auth(self.address.user, self.address.password),
            ["CLUSTER", "KEYSLOT", self._key],
            ["CLUSTER", "SLOTS"],
        ]
        *_, slot, ranges = await self._ask(place, commands)
        masters = {(each[2][0].decode() or place[0], each[2][1]): (each[0], each[1]) for each in ranges}
        if not masters:
            raise ConnectionError("this node of the cluster knows no slots")
        self._known = list({*masters, *self.address.hosts})
        if not self._key:
            return place if place in masters else secrets.choice(list(masters))
        for each in ranges:
            if each[0] <= slot <= each[1]:
                return each[2][0].decode() or place[0], each[2][1]
        raise ConnectionError(f"no node of the cluster has the slot {slot}")

    async def _ask(self, place: Place, commands: Sequence[Command]) -> list[Any]:
        reader, writer = await asyncio.open_connection(*place, ssl=self.tls)
        try:
            writer.write(b"".join(map(pack, commands)))
            parser, replies = hiredis.Reader(), list[Any]()
            while len(replies) < len(commands):
                if not (data := await reader.read(65536)):
                    raise ConnectionResetError("it has closed the connection")
                parser.feed(data)
                while (reply := parser.gets()) is not False:
                    if isinstance(reply, Exception):
                        raise reply
                    replies.append(reply)
            return replies
        finally:
            writer.close()


def _shuffled(places: Sequence[Place]) -> list[Place]:
    return sorted(places, key=lambda _: secrets.randbits(32))


def _auth(user: str, password: str) -> list[Command]:
    return [["AUTH", *([user] if user else []), password]] if password else []
