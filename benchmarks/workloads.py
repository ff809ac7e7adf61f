"""The workloads. Each measures one running node and returns a Sample.

The number of messages is not fixed: short warm-up bursts measure the broker's pace, which determines the
size of the measured burst. So a slow broker gets fewer messages, and a fast one enough to outweigh the ticks
of 10 ms in which the kernel accounts CPU time.

The limits on how fast one address may connect and one user may publish are raised for all of them
(`brokers.RAISED_LIMITS`). All others are as shipped.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from . import frames, procfs
from .brokers import Node
from .loadgen import BenchmarkError, Client, Flow, open_client

PAIRS = 20
SUBSCRIBERS = 200
OPEN_CONCURRENTLY = 50
MAX_DELIVERIES = 1_000_000
MAX_CONNECTS = 6000
WARM_UP_SECONDS = 0.2
# The wait after a burst, in which a duplicate message or a late allocation shows.
SETTLE_SECONDS = 0.3
# A process that uses this many CPU seconds per second counts as being at its limit.
BUSY = 0.9
# Idle connections are opened for at most this long; a slow broker gets fewer of them.
OPENING_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. Figures that a workload does not measure are None.

    rate: deliveries (or connects) per second. cpu_us: CPU microseconds of the broker per delivery (or
    connect). generator_share: CPU seconds of the load generator per second; near 1 the generator, not the
    broker, limits the rate. idle_mb: resident MiB without a client. connection_kb: resident KiB per
    additional idle connection.
    """

    rate: float | None = None
    cpu_us: float | None = None
    generator_share: float | None = None
    idle_mb: float | None = None
    connection_kb: float | None = None

    @property
    def generator_limited(self) -> bool:
        """Whether the load generator was at its limit and the broker was not."""
        broker_share = (self.rate or 0) * (self.cpu_us or 0) / 1e6
        return (self.generator_share or 0) > BUSY > broker_share


@dataclass(frozen=True, slots=True)
class Effort:
    """The size of a measurement: bursts of about `seconds`, `connections` idle connections, and a
    `deadline` in seconds for the whole measurement.
    """

    seconds: float
    connections: int
    deadline: float


class Meter:
    """Measures broker CPU, generator CPU and wall time from construction to `sample()`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._broker = procfs.cpu_seconds(pid)
        self._generator = time.process_time()
        self._clock = time.perf_counter()

    def sample(self, operations: int) -> Sample:
        seconds = time.perf_counter() - self._clock
        generator = time.process_time() - self._generator
        broker = procfs.cpu_seconds(self._pid) - self._broker
        return Sample(
            rate=operations / seconds,
            cpu_us=broker / operations * 1e6,
            generator_share=generator / seconds,
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """A workload of `publishers` with `fan_out` receivers each. Each publisher has at most `window`
    messages under way."""

    qos: int
    publishers: int
    fan_out: int
    window: int

    async def measure(self, node: Node, effort: Effort) -> Sample:
        flows: dict[str, Flow] = {}
        try:
            async with asyncio.timeout(effort.deadline):
                await self._connect(node, flows)
                sample = await self._burst(node, flows, self.window)
                for seconds in (WARM_UP_SECONDS, effort.seconds):
                    sample = await self._burst(node, flows, self._count(sample, seconds))
                await asyncio.sleep(SETTLE_SECONDS)
        except TimeoutError as error:
            missing = sum(flow.missing() for flow in flows.values())
            raise BenchmarkError(f"timeout: {missing:,} deliveries missing") from error
        finally:
            for flow in flows.values():
                flow.close()
        for flow in flows.values():
            flow.verify()
        return sample

    def _count(self, sample: Sample, seconds: float) -> int:
        """The number of messages per publisher that take about `seconds` at the pace of `sample`."""
        deliveries = min((sample.rate or 0) * seconds, MAX_DELIVERIES)
        return max(round(deliveries / self.publishers / self.fan_out), self.window)

    async def _connect(self, node: Node, flows: dict[str, Flow]) -> None:
        """Open all connections and add the flow of each topic to `flows`."""
        for number in range(self.publishers):
            receivers = [await _join(node, _receiver(number, copy)) for copy in range(self.fan_out)]
            topic = f"bench/{number:02}"
            if node.tokens:
                topic = f"users/{_receiver(number)}/inbox"
            for receiver in receivers:
                await receiver.subscribe(topic, self.qos)
            publisher = await _join(node, _sender(number))
            flows[topic] = Flow(publisher, receivers, self.qos, self.window)

    async def _burst(self, node: Node, flows: dict[str, Flow], count: int) -> Sample:
        """Send `count` messages in every flow and wait until all of them have arrived."""
        if node.tokens:
            prefix = secrets.token_hex(4)
            blocks = [frames.message_block(topic, count, prefix) for topic in flows]
        else:
            blocks = [frames.plain_block(topic, self.qos) for topic in flows]
        meter = Meter(node.pid)
        runs = zip(flows.values(), blocks, strict=True)
        await asyncio.gather(*(flow.run(block, count) for flow, block in runs))
        return meter.sample(count * self.publishers * self.fan_out)


async def measure_connects(node: Node, effort: Effort) -> Sample:
    """Connect and disconnect, OPEN_CONCURRENTLY clients at a time."""
    async with asyncio.timeout(effort.deadline):
        sample = await _connect_burst(node, OPEN_CONCURRENTLY)
        for seconds in (WARM_UP_SECONDS, effort.seconds):
            count = min(round((sample.rate or 0) * seconds), MAX_CONNECTS)
            sample = await _connect_burst(node, max(count, OPEN_CONCURRENTLY))
    return sample


async def _connect_burst(node: Node, count: int) -> Sample:
    prefix = secrets.token_hex(4)
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            client = await _join(node, f"bench-{prefix}-{number}")
            client.close()

    meter = Meter(node.pid)
    await asyncio.gather(*(work() for _ in range(OPEN_CONCURRENTLY)))
    return meter.sample(count)


async def measure_idle(node: Node, effort: Effort) -> Sample:
    """Resident memory without a client, and the memory that each of many idle connections adds."""
    async with asyncio.timeout(effort.deadline):
        await asyncio.sleep(SETTLE_SECONDS)
        idle = procfs.rss_kb(node.pid)
        # The first connections also cause allocations that happen once, so they are not counted.
        clients = await _open_idle(node, OPEN_CONCURRENTLY, "first")
        before = procfs.rss_kb(node.pid)
        counted = await _open_idle(node, effort.connections, "idle")
        await asyncio.sleep(SETTLE_SECONDS)
        grown = procfs.rss_kb(node.pid) - before
    for client in clients + counted:
        client.close()
    return Sample(idle_mb=idle / 1024, connection_kb=grown / len(counted))


async def _open_idle(node: Node, count: int, name: str) -> list[Client]:
    """Open up to `count` connections, as many as the broker accepts in OPENING_SECONDS."""
    clients: list[Client] = []
    numbers = iter(range(count))
    end = time.monotonic() + OPENING_SECONDS

    async def work() -> None:
        for number in numbers:
            clients.append(await _join(node, f"bench-{name}-{number}"))
            if time.monotonic() > end:
                return

    await asyncio.gather(*(work() for _ in range(OPEN_CONCURRENTLY)))
    return clients


async def _join(node: Node, name: str) -> Client:
    """Connect with client id `name`, and as user `name` if the node has users."""
    if not node.tokens:
        return await open_client(node.host, node.port, name)
    return await open_client(node.host, node.port, name, name, node.tokens[name])


def _sender(number: int) -> str:
    return f"bench-s{number:02}"


def _receiver(number: int, copy: int = 0) -> str:
    return f"bench-r{number:02}" + (f"-{copy}" if copy else "")


def pair_users() -> list[str]:
    """The users of the pairs that write to each other's inboxes."""
    return [name(number) for name in (_sender, _receiver) for number in range(PAIRS)]


@dataclass(frozen=True, slots=True)
class Workload:
    """A named measurement. `durable`: it can also run on a node with users, through their inboxes."""

    name: str
    title: str
    measure: Callable[[Node, Effort], Awaitable[Sample]]
    durable: bool = False


WORKLOADS = (
    Workload("pairs-qos0", "20 pairs, QoS 0", Traffic(0, PAIRS, 1, window=100).measure),
    Workload("pairs-qos1", "20 pairs, QoS 1", Traffic(1, PAIRS, 1, window=50).measure, True),
    Workload("fanout-qos0", "1 to 200, QoS 0", Traffic(0, 1, SUBSCRIBERS, window=20).measure),
    Workload("fanout-qos1", "1 to 200, QoS 1", Traffic(1, 1, SUBSCRIBERS, window=20).measure),
    Workload("connect", "connects", measure_connects),
    Workload("idle", "idle memory", measure_idle),
)
