"""`imctl serve` whose broker and services reach each other by bytes only, as two processes would.

    python -m tests.integration.remote_node serve --config FILE --data-dir DIR --set KEY=VALUE ...

Both ends of a socket pair are in this process. Every call, answer and hint goes through it as a line
of JSON; what cannot be written down so fails here.
"""

import argparse
import asyncio
import contextlib
import itertools
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from broker.domain.errors import Refusal, StoreError
from broker.domain.message import Body, Draft
from broker.ports import Arrival, BrokerPort, Device, Identity, Post, Posted, PresenceChange, ServicesPort
from broker.tasks import Tasks
from server.app import serve


class _Frame(msgspec.Struct, omit_defaults=True):
    """A call has a method; an answer has the number of its call; a hint has neither."""

    number: int = 0
    method: str = ""
    arguments: Mapping[str, msgspec.Raw] = {}
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str | None = None
    grown: int = 0


class _Stored(msgspec.Struct):
    """`Posted`, told apart."""

    body: Body | None = None
    refusal: Refusal | None = None


class End:
    """One end of the line: it calls the other one, and answers it with the methods of `offers`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: type) -> None:
        self._reader = reader
        self._writer = writer
        self._port = port
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._watching: dict[int, Callable[[], None]] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._tasks = Tasks()
        self._is_cut = False

    def offer(self, offers: Any) -> None:
        """Answer the other end's calls with this object."""
        self._tasks.spawn(self._answer_all(offers))

    def _send(self, frame: _Frame) -> None:
        self._writer.write(msgspec.json.encode(frame) + b"\n")

    async def ask(self, method: str, /, **arguments: Any) -> msgspec.Raw:
        """Call the other end. Returns its answer as JSON."""
        if self._is_cut:
            raise StoreError("the other side is gone")
        number = next(self._numbers)
        answered = self._asked[number] = asyncio.get_running_loop().create_future()
        written = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in arguments.items()}
        self._send(_Frame(number, method, written))
        return await answered

    async def watch(self, topic: str, grown: Callable[[], None]) -> Callable[[], None]:
        number = next(self._numbers)
        self._watching[number] = grown
        await self.ask("watch", topic=topic, number=number)

        def stop() -> None:
            if self._watching.pop(number, None) is not None:
                self._send(_Frame(method="unwatch", arguments={"number": msgspec.Raw(b"%d" % number)}))

        return stop

    async def _answer_all(self, offers: Any) -> None:
        with contextlib.suppress(ConnectionError):
            async for line in self._reader:
                self._take(offers, msgspec.json.decode(line, type=_Frame))
        self._is_cut = True
        self._writer.close()
        for answered in self._asked.values():
            answered.set_exception(StoreError("the other side is gone"))
        for grown in self._watching.values():
            grown()

    def _take(self, offers: Any, frame: _Frame) -> None:
        if frame.grown:
            if (grown := self._watching.get(frame.grown)) is not None:
                grown()
        elif frame.method == "unwatch":
            self._watched.pop(int(bytes(frame.arguments["number"])))()
        elif frame.method:
            self._tasks.spawn(self._answer(offers, frame))
        elif frame.error is not None:
            self._asked.pop(frame.number).set_exception(StoreError(frame.error))
        else:
            self._asked.pop(frame.number).set_result(frame.result)

    async def _answer(self, offers: Any, frame: _Frame) -> None:
        hints = get_type_hints(getattr(self._port, frame.method), include_extras=True)
        hints |= {"number": int}
        arguments = {
            name: msgspec.json.decode(raw, type=hints[name]) for name, raw in frame.arguments.items()
        }
        try:
            if frame.method == "watch":
                number = arguments["number"]
                stop = await offers.watch(arguments["topic"], lambda: self._send(_Frame(grown=number)))
                self._watched[number] = stop
                result = None
            else:
                result = await getattr(offers, frame.method)(**arguments)
        except StoreError as error:
            self._send(_Frame(frame.number, error=str(error)))
            return
        if frame.method in ("publish", "append"):
            result = [
                _Stored(refusal=each) if isinstance(each, Refusal) else _Stored(each) for each in result
            ]
        self._send(_Frame(frame.number, result=msgspec.Raw(msgspec.json.encode(result))))


class RemoteBroker:
    """See `broker.ports.BrokerPort`."""

    def __init__(self, end: End) -> None:
        self._end = end
        self.watch = end.watch

    async def publish(self, sender: str, posts: Sequence[Post]) -> list[Posted]:
        return _posted(await self._end.ask("publish", sender=sender, posts=posts))

    async def append(self, drafts: Sequence[Draft]) -> list[Posted]:
        return _posted(await self._end.ask("append", drafts=drafts))

    async def emit(self, users: Sequence[str], event: Mapping[str, Any], *, keep: bool = True) -> None:
        with contextlib.suppress(StoreError):  # it is lost, as the port says
            await self._end.ask("emit", users=users, event=event, keep=keep)

    async def pace(self, user: str, publishes: int, *, wait: bool) -> None:
        await self._end.ask("pace", user=user, publishes=publishes, wait=wait)

    async def push(self, users: Sequence[str], event: Mapping[str, Any]) -> list[str]:
        return msgspec.json.decode(await self._end.ask("push", users=users, event=event), type=list[str])

    async def devices(self, users: Sequence[str]) -> dict[str, list[str]]:
        return msgspec.json.decode(await self._end.ask("devices", users=users), type=dict[str, list[str]])

    async def connections(self, user: str, after: str, limit: int) -> list[Device]:
        answer = await self._end.ask("connections", user=user, after=after, limit=limit)
        return msgspec.json.decode(answer, type=list[Device])

    async def kick(self, user: str) -> int:
        return msgspec.json.decode(await self._end.ask("kick", user=user), type=int)

    async def renew(self, client_id: str, identity: Identity) -> bool:
        answer = await self._end.ask("renew", client_id=client_id, identity=identity)
        return msgspec.json.decode(answer, type=bool)

    async def stats(self) -> dict[str, int]:
        return msgspec.json.decode(await self._end.ask("stats"), type=dict[str, int])


def _posted(answer: msgspec.Raw) -> list[Posted]:
    stored = msgspec.json.decode(answer, type=list[_Stored])
    return [posted for each in stored if (posted := each.body or each.refusal) is not None]


class RemoteServices:
    """See `broker.ports.ServicesPort`."""

    def __init__(self, end: End) -> None:
        self._end = end

    async def call(self, user: str, method: str, payload: bytes, client_id: str = "") -> bytes:
        answer = await self._end.ask("call", user=user, method=method, payload=payload, client_id=client_id)
        return msgspec.json.decode(answer, type=bytes)

    async def arrived(self, batch: Sequence[Arrival]) -> None:
        await self._end.ask("arrived", batch=batch)

    async def presence_changed(self, batch: Sequence[PresenceChange]) -> None:
        await self._end.ask("presence_changed", batch=batch)


class ByBytes:
    """See `server.assembly.Joint`."""

    _ends: tuple[End, End] | None = None

    async def _line(self) -> tuple[End, End]:
        if self._ends is None:
            broker, services = socket.socketpair()
            limit = 64 * 1024 * 1024
            self._ends = (
                End(*await asyncio.open_connection(sock=broker, limit=limit), BrokerPort),
                End(*await asyncio.open_connection(sock=services, limit=limit), ServicesPort),
            )
        return self._ends

    async def to_broker(self, broker: BrokerPort) -> BrokerPort:
        at_broker, at_services = await self._line()
        at_broker.offer(broker)
        return RemoteBroker(at_services)

    async def to_services(self, services: ServicesPort) -> ServicesPort:
        at_broker, at_services = await self._line()
        at_services.offer(services)
        return RemoteServices(at_broker)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    return serve(given.config, given.data_dir, given.set, ByBytes())


if __name__ == "__main__":
    sys.exit(main())
