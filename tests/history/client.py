"""A small asynchronous MQTT 3.1.1 client, which leaves to its user when what is acknowledged.

A connection to a node that says nothing any more ends like one that was lost.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.integration.raw import RawPacket, connect, packet, publish, subscribe

_CONNECT_SECONDS = 5.0
_PING_SECONDS = 1.0
_DEAD_AFTER = 4.0
_PINGREQ = packet(0xC0)

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, SUBACK = 2, 3, 4, 5, 6, 9
LOST = (ConnectionError, OSError, TimeoutError, asyncio.IncompleteReadError)


class Address(NamedTuple):
    """Where a node takes MQTT connections."""

    host: str
    port: int

    @classmethod
    def of(cls, text: str) -> "Address":
        """From HOST:PORT."""
        host, _, port = text.rpartition(":")
        return cls(host, int(port))


class Person(NamedTuple):
    """A user, with a password or token."""

    name: str
    password: str


class Message(NamedTuple):
    """A PUBLISH."""

    topic: str
    payload: bytes
    qos: int
    packet_id: int
    again: bool
    """The DUP flag."""


class Refused(ConnectionError):  # noqa: N818 - what has happened, not an error of the program
    """The node does not take the connection."""


class Connection:
    """An open connection. `present`: whether the node knew the session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.present = False
        self._reader = reader
        self._writer = writer
        self._packet_ids = itertools.cycle(range(1, 65536))

    def next_id(self) -> int:
        return next(self._packet_ids)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def login(self, client_id: str, person: Person, *, clean: bool) -> None:
        """CONNECT, and its answer."""
        self.send(connect(client_id, person.name, person.password, clean=clean))
        answer = await self._packet()
        if answer.type != CONNACK or answer.body[1]:
            raise Refused(f"{client_id}: {answer}")
        self.present = bool(answer.body[0])

    async def subscribe(self, *filters: tuple[str, int]) -> list[RawPacket]:
        """Returns what came before the SUBACK."""
        self.send(subscribe(self.next_id(), *filters))
        before = []
        while (received := await self._packet()).type != SUBACK:
            before.append(received)
        if any(code == 0x80 for code in received.body[2:]):
            raise Refused(f"a filter of {filters}")
        return before

    async def packets(self) -> AsyncIterator[RawPacket]:
        """What comes, until the connection is lost: that raises one of `LOST`."""
        loop = asyncio.get_running_loop()
        reading: asyncio.Task[RawPacket] | None = None
        heard = loop.time()
        try:
            while True:
                reading = reading or loop.create_task(self._packet())
                done, _ = await asyncio.wait([reading], timeout=_PING_SECONDS)
                if done:
                    received, reading, heard = reading.result(), None, loop.time()
                    yield received
                elif loop.time() - heard > _DEAD_AFTER:
                    raise TimeoutError("the node is silent")
                else:
                    self.send(_PINGREQ)
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _packet(self) -> RawPacket:
        first = (await self._reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await self._reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return RawPacket(first, await self._reader.readexactly(length))

    def abort(self) -> None:
        """End it without DISCONNECT."""
        self._writer.transport.abort()


@asynccontextmanager
async def connected(
    address: Address, client_id: str, person: Person, *, clean: bool
) -> AsyncIterator[Connection]:
    """A connection that is logged in, and is aborted at the end. Raises one of `LOST`."""
    async with asyncio.timeout(_CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(*address)
    connection = Connection(reader, writer)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await connection.login(client_id, person, clean=clean)
        yield connection
    finally:
        connection.abort()


def message_of(received: RawPacket) -> Message:
    """Read a PUBLISH."""
    size, body = int.from_bytes(received.body[:2], "big"), received.body
    topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
    qos, again = received.first >> 1 & 3, bool(received.first & 8)
    if not qos:
        return Message(topic, rest, 0, 0, again)
    return Message(topic, rest[2:], qos, int.from_bytes(rest[:2], "big"), again)


class CallError(Exception):
    """A call that was answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['code']}: {error['detail']}")
        self.code = str(error["code"])


_CALL_SECONDS = 10.0
_numbers = itertools.count(1)


class Calls:
    """The RPC of a user, over one connection."""

    def __init__(self, connection: Connection, user: str) -> None:
        self._connection = connection
        self._user = user
        self._packets = connection.packets()

    async def call(self, method: str, **parameters: Any) -> Any:
        """The result. Raises `CallError`, or one of `LOST`."""
        request_id = f"r{next(_numbers)}"
        request = json.dumps({"request_id": request_id} | parameters).encode()
        self._connection.send(publish(f"users/{self._user}/rpc/{method}", request))
        async with asyncio.timeout(_CALL_SECONDS):
            async for received in self._packets:
                if received.type == PUBLISH:
                    reply = json.loads(message_of(received).payload)
                    if reply.get("request_id") == request_id:
                        if not reply["ok"]:
                            raise CallError(reply["error"])
                        return reply["result"]
        raise ConnectionError("the packets have ended")

    async def close(self) -> None:
        await self._packets.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def calling(address: Address, person: Person, name: str) -> AsyncIterator[Calls]:
    """A connection for calls. Raises one of `LOST`."""
    async with connected(address, f"{person.name}-{name}", person, clean=True) as connection:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await connection.subscribe((f"users/{person.name}/replies", 0))
        calls = Calls(connection, person.name)
        try:
            yield calls
        finally:
            await calls.close()
