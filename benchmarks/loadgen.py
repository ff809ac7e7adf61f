"""The load generator: MQTT connections, and a closed loop between publisher and receivers.

A Flow keeps at most `window` messages on their way: sent, but not yet received by all receivers (and, at
QoS 1, not yet acknowledged to the publisher). So a broker that is slower than the generator need not drop
messages, and every message must arrive exactly once.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from . import frames


class BenchmarkError(Exception):
    """A measurement could not be taken. The report shows the text."""


class Client(asyncio.Protocol):
    """A connection that counts the messages it receives and acknowledges QoS 1 at once.

    `on_progress(deliveries, acknowledgements)` is called with the counts of each read, `on_lost()` when the
    broker closes the connection.
    """

    def __init__(self) -> None:
        self.counter = frames.FrameCounter()
        self.on_progress: Callable[[int, int], None] = _ignore_progress
        self.on_lost: Callable[[], None] = _ignore_loss
        self._answer: asyncio.Future[bytes] | None = None
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write

    def data_received(self, data: bytes) -> None:
        counter = self.counter
        publishes, pubacks = counter.publishes, counter.pubacks
        replies = counter.feed(data)
        if replies:
            self.write(replies)
        if counter.control:
            self._take_answer(counter.control.pop(0))
        self.on_progress(counter.publishes - publishes, counter.pubacks - pubacks)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(BenchmarkError("the broker closed the connection"))
        if not self._closing:
            self.on_lost()

    def _take_answer(self, frame: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(frame)

    async def request(self, frame: bytes) -> bytes:
        """Send a CONNECT or SUBSCRIBE. Returns the frame that answers it."""
        self._answer = asyncio.get_running_loop().create_future()
        self.write(frame)
        return await self._answer

    async def subscribe(self, topic: str, qos: int) -> None:
        answer = await self.request(frames.subscribe(topic, qos))
        if answer[0] != frames.SUBACK or answer[-1] != qos:
            raise BenchmarkError(f"SUBSCRIBE to {topic} refused: {answer.hex()}")

    def close(self) -> None:
        self._closing = True
        if not self._transport.is_closing():
            self.write(frames.DISCONNECT_FRAME)
            self._transport.close()


def _ignore_progress(deliveries: int, acknowledgements: int) -> None:
    """The callback until a flow sets its own."""


def _ignore_loss() -> None:
    """The callback until a flow sets its own."""


async def open_client(
    host: str,
    port: int,
    client_id: str,
    username: str | None = None,
    password: str | None = None,
    client: Client | None = None,
) -> Client:
    """Connect `client`, or a new one, and return it when the broker has accepted. BenchmarkError if it
    refuses."""
    loop = asyncio.get_running_loop()
    client = client or Client()
    await loop.create_connection(lambda: client, host, port)
    answer = await client.request(frames.connect(client_id, username, password))
    if answer[0] != frames.CONNACK or answer[3] != 0:
        client.close()
        raise BenchmarkError(f"CONNECT as {client_id} refused: {answer.hex()}")
    return client


class Flow:
    """One publisher, the receivers of its topic, and the window between them.

    All counts are totals over all runs, so a new run needs no reset.
    """

    def __init__(self, publisher: Client, receivers: list[Client], qos: int, window: int) -> None:
        self._publisher = publisher
        self._receivers = receivers
        self._acknowledged = qos > 0
        self._window = window
        self._target = self._sent = self._acked = 0
        self._deliveries = 0
        self._done: asyncio.Future[None] | None = None
        self._broken: BenchmarkError | None = None
        for client in (publisher, *receivers):
            client.on_progress = self._progress
            client.on_lost = self._lost

    def run(self, block: frames.Block, count: int) -> asyncio.Future[None]:
        """Send `count` frames of `block`. The future is done when the last one has arrived everywhere."""
        if self._broken:
            raise self._broken
        self._block = block
        self._origin = self._sent
        self._target = self._sent + count
        self._done = done = asyncio.get_running_loop().create_future()
        self._pump()
        return done

    def verify(self) -> None:
        """Raise BenchmarkError unless every receiver got as many messages as were sent."""
        for client in self._receivers:
            got = client.counter.publishes
            if got != self._target:
                raise BenchmarkError(f"a receiver got {got:,} messages of {self._target:,}")

    def missing(self) -> int:
        """The number of deliveries that have not arrived."""
        return self._target * len(self._receivers) - self._deliveries

    def close(self) -> None:
        for client in (self._publisher, *self._receivers):
            client.close()

    def _progress(self, deliveries: int, acknowledgements: int) -> None:
        self._deliveries += deliveries
        self._acked += acknowledgements
        self._pump()

    def _pump(self) -> None:
        arrived = self._deliveries // len(self._receivers)
        if self._acknowledged and self._acked < arrived:
            arrived = self._acked
        if arrived >= self._target:
            if self._done and not self._done.done():
                self._done.set_result(None)
            return
        # Send when half the window is free: one write for many frames, while the other half is under way.
        under_way = self._sent - arrived
        if under_way * 2 > self._window:
            return
        count = min(self._window - under_way, self._target - self._sent)
        if count:
            self._publisher.write(self._block.cut(self._sent - self._origin, count))
            self._sent += count

    def _lost(self) -> None:
        self._broken = BenchmarkError("the broker closed a connection")
        if self._done and not self._done.done():
            self._done.set_exception(self._broken)
