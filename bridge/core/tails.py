"""A log as it grows: its head, and its entries from a place on."""

import asyncio
from collections.abc import AsyncGenerator

from broker.domain.conversation import log_name
from broker.domain.topics import parse_topic
from broker.ports import BrokerPort, MessageLog

_CHUNK = 100
_CHUNK_BYTES = 256 * 1024


async def head(log: MessageLog, topic: str) -> int:
    """The last offset of an inbox or group topic's log. Raises `StoreError`."""
    name = log_name(parse_topic(topic))
    return (await log.heads([name]))[name]


async def tail(log: MessageLog, broker: BrokerPort, topic: str, after: int) -> AsyncGenerator[bytes, None]:
    """The entries of an inbox or group topic after offset `after` as delivered JSON, then new ones as
    they are stored; until the caller stops. Raises `StoreError`."""
    name = log_name(parse_topic(topic))
    grown = asyncio.Event()
    stop = await broker.watch(topic, grown.set)
    try:
        position = after
        while True:
            grown.clear()  # before the read: what comes during it is not missed
            entries = await log.read(name, position, _CHUNK, _CHUNK_BYTES)
            for entry in entries:
                yield entry.payload
                position = entry.offset
            if not entries:
                await grown.wait()
    finally:
        stop()
