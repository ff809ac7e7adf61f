"""The floods. Each runs in a process of its own until it is ended: `python -m benchmarks.hostile.attacks
NAME`, with the `Target` as JSON on standard input.

An attacker ignores what it is answered, and sends as fast as the node reads.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import grpc.aio

from benchmarks import frames
from benchmarks.loadgen import BenchmarkError, Client
from benchmarks.procfs import raise_file_limit
from bridge.grpc_api import im_pb2 as pb
from bridge.grpc_api import im_pb2_grpc as services

from .town import ATTACKED_FROM, ATTACKER, OPEN, Target

CONNECTIONS = 10
MANY_CONNECTIONS = 190
"""As many as one user may have, nearly (limits.connections_per_user)."""
CALLS = 250
"""As many calls in progress as one user may have, nearly (limits.calls_per_user)."""
_NICENESS = 5
"""The attacker must not starve the probes of CPU time: they share a small machine."""

INBOX = f"users/{ATTACKER}/inbox"
FILTERS = (INBOX, f"users/{ATTACKER}/events", f"users/{ATTACKER}/replies")


class Attacker(Client):
    """A connection that writes all the time, as long as the node reads."""

    def __init__(self) -> None:
        super().__init__()
        self._block = b""

    def flood(self, block: bytes) -> None:
        """Send a block of frames again and again."""
        self._block = block
        self._transport.set_write_buffer_limits(high=len(block))
        self.resume_writing()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        while self._block and not self._transport.is_closing():
            self._transport.write(self._block)
            if self._transport.get_write_buffer_size() > len(self._block):
                return

    def deafen(self) -> None:
        """Read nothing from now on."""
        self._transport.pause_reading()


async def _open(target: Target, client_id: str, *, clean: bool = True, password: str = "") -> Attacker:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(
        Attacker, target.host, target.port, local_addr=(ATTACKED_FROM, 0)
    )
    answer = await client.request(frames.connect(client_id, ATTACKER, password or target.token, clean=clean))
    if answer[3] != 0:
        client.close()
        raise BenchmarkError(f"CONNACK {answer[3]}")
    return client


async def _open_all(target: Target, count: int, *, clean: bool = True) -> list[Attacker]:
    return [await _open(target, f"{ATTACKER}-{number}", clean=clean) for number in range(count)]


@dataclass(frozen=True, slots=True)
class Flood:
    """CONNECTIONS connections that send the same frames again and again."""

    block: bytes
    clean: bool = True

    async def __call__(self, target: Target) -> None:
        for client in await _open_all(target, CONNECTIONS, clean=self.clean):
            client.flood(self.block)
        await asyncio.Event().wait()


def _publishes(topics: Sequence[str], payload: bytes, qos: int, count: int = 500) -> bytes:
    each = zip(range(count), cycle(topics), strict=False)
    return b"".join(frames.publish(topic, payload, qos, number + 1) for number, topic in each)


def _retained(count: int = 5000) -> bytes:
    topics = [f"{OPEN}/{number}" for number in range(count)]
    return b"".join(
        frames.publish(topic, b"kept", 1, number + 1, retain=True) for number, topic in enumerate(topics)
    )


def _presences() -> bytes:
    topic = f"users/{ATTACKER}/presence"
    here, gone = (b'{"status":"%s"}' % status for status in (b"busy", b"away"))
    return b"".join(frames.publish(topic, (here, gone)[number % 2], 1, number + 1) for number in range(500))


def _subscribes() -> bytes:
    pair = b"".join(frames.subscribe(each, 1) for each in FILTERS)
    pair += b"".join(frames.unsubscribe(each) for each in FILTERS)
    return pair * 50


async def _refused(target: Target) -> None:
    """Refused publishes of a user with many sessions, which all get the events about them."""
    for client in await _open_all(target, MANY_CONNECTIONS, clean=False):
        await client.subscribe(FILTERS[1], 1)
        client.close()
    await Flood(_publishes(["groups/there-is-none"], b"hello", 1))(target)


async def _never_read(target: Target) -> None:
    """Connections that read nothing of what is sent to them."""
    clients = await _open_all(target, MANY_CONNECTIONS)
    for client in clients:
        await client.subscribe(INBOX, 0)
        client.deafen()
    for client in await _open_all(target, CONNECTIONS):
        client.flood(_publishes([INBOX], b"x" * 1000, 1))
    await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class Calls:
    """CALLS calls in progress over MQTT, again and again."""

    method: str
    parameters: bytes

    async def __call__(self, target: Target) -> None:
        client = await _open(target, f"{ATTACKER}-caller")
        await client.subscribe(FILTERS[2], 0)
        request = frames.publish(f"users/{ATTACKER}/rpc/{self.method}", self.parameters, 0, 0)
        client.on_progress = lambda answered, _: client.write(request * answered)
        client.write(request * CALLS)
        await asyncio.Event().wait()


async def _call_over_grpc(target: Target) -> None:
    """As `Calls`, over gRPC, on a few connections."""

    async def again_and_again(call: Callable[..., Awaitable[Any]], request: Any) -> None:
        metadata = (("authorization", f"Bearer {target.token}"),)
        while True:
            with suppress(grpc.aio.AioRpcError):
                await call(request, metadata=metadata)

    page = pb.GetMessagesRequest(conversation_id=f"p:{ATTACKER}:{ATTACKER}", limit=100)
    async with asyncio.TaskGroup() as calls:
        for number in range(5):
            options = (("grpc.use_local_subchannel_pool", 1),)
            channel = grpc.aio.insecure_channel(target.grpc, options)
            stub = services.MessageServiceStub(channel)  # type: ignore[no-untyped-call]
            for _ in range(CALLS // 5):
                calls.create_task(again_and_again(stub.GetMessages, page), name=f"caller {number}")


@dataclass(frozen=True, slots=True)
class Connects:
    """Connects again and again, `at_once` at a time."""

    at_once: int
    password: str = ""
    """The attacker's token if empty."""

    async def __call__(self, target: Target) -> None:
        async def again_and_again(number: int) -> None:
            while True:
                try:
                    client = await _open(target, f"{ATTACKER}-{number}", password=self.password)
                except (BenchmarkError, OSError):
                    continue
                client.close()

        await asyncio.gather(*(again_and_again(number) for number in range(self.at_once)))


Attack = Callable[[Target], Awaitable[None]]

ATTACKS: dict[str, tuple[str, Attack]] = {
    "qos1": ("QoS 1 messages", Flood(_publishes([INBOX], b"hello", 1))),
    "qos0": ("QoS 0 messages", Flood(_publishes([INBOX], b"hello", 0))),
    "large": ("large messages", Flood(_publishes([INBOX], b"x" * 200_000, 1, 5))),
    "open": ("open topic, QoS 0", Flood(_publishes([OPEN], b"reading", 0))),
    "presence": ("presence", Flood(_presences())),
    "retained": ("retained messages", Flood(_retained())),
    "typing": ("typing notices", Flood(_publishes([f"users/{ATTACKER}/typing"], b"{}", 0))),
    "refused": ("refused publishes", _refused),
    "pings": ("PINGREQ", Flood(b"\xc0\0" * 8000)),
    "subscribes": ("SUBSCRIBE, UNSUBSCRIBE", Flood(_subscribes(), clean=False)),
    "sync": ("messages.sync", Calls("messages.sync", b'{"limit":1000}')),
    "calls": ("conversations.list", Calls("conversations.list", b"{}")),
    "grpc": ("gRPC GetMessages", _call_over_grpc),
    "deaf": ("never reading", _never_read),
    "passwords": ("wrong passwords", Connects(MANY_CONNECTIONS, "a guess")),
    "connects": ("connects", Connects(50)),
}
"""The attacks: name -> (title, attack)."""


def main() -> int:
    """Attack until the process is ended."""
    os.nice(_NICENESS)
    raise_file_limit()
    attack = ATTACKS[sys.argv[1]][1]
    target = Target.from_json(sys.stdin.readline())
    asyncio.run(_run(attack, target))
    return 0


async def _run(attack: Attack, target: Target) -> None:
    await attack(target)


if __name__ == "__main__":
    sys.exit(main())
