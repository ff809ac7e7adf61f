"""Reading a log as it grows: its head, and its entries after an offset."""

import asyncio
from collections.abc import AsyncGenerator

from broker.domain.conversation import log_name
from broker.domain.topics import parse_topic
from broker.ports import BrokerPort, MessageLog

_CHUNK = 100
_CHUNK_BYTES = 256 * 1024


async def head(log: MessageLog, topic: str) -> int:
    """The last offset in the log of an inbox or group topic; 0 if it is empty. Raises `StoreError`."""
    name = log_name(parse_topic(topic))
    return (await log.heads([name]))[name]


async def tail(log: MessageLog, broker: BrokerPort, topic: str, after: int) -> AsyncGenerator[bytes, None]:
    """The entries of an inbox or group topic after offset `after`, as delivered JSON; then new entries as
    they are stored. Ends when the caller closes it. Raises `StoreError`."""
    name = log_name(parse_topic(topic))
    grown = asyncio.Event()
    stop = await broker.watch(topic, grown.set)
    try:
        position = after
        while True:
            grown.clear()  # before the read, so that an entry stored during it wakes us again
            entries = await log.read(name, position, _CHUNK, _CHUNK_BYTES)
            for entry in entries:
                yield entry.payload
                position = entry.offset
            if not entries:
                await grown.wait()
    finally:
        stop()
