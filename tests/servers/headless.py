"""A server that answers as a member of a MongoDB replica set in which there is no primary.

It stands in for elections, which the tests' server does not have.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import bson

from tests.servers.processes import HOST

_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013


@asynccontextmanager
async def headless() -> AsyncIterator[str]:
    """The URL of a member without a primary."""
    server = await asyncio.start_server(_serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"mongodb://{HOST}:{port}"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    port = writer.get_extra_info("sockname")[1]
    try:
        while True:
            length, request, _, opcode = struct.unpack("<iiii", await reader.readexactly(16))
            await reader.readexactly(length - 16)
            answer = bson.encode(_hello(port))
            if opcode == _OP_QUERY:
                body, kind = struct.pack("<iqii", 8, 0, 0, 1) + answer, _OP_REPLY
            else:
                body, kind = struct.pack("<iB", 0, 0) + answer, _OP_MSG
            writer.write(struct.pack("<iiii", 16 + len(body), 1, request, kind) + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


def _hello(port: int) -> dict[str, Any]:
    me = f"{HOST}:{port}"
    return {
        "ok": 1.0,
        "helloOk": True,
        "isWritablePrimary": False,
        "ismaster": False,
        "secondary": True,
        "setName": "rs0",
        "hosts": [me],
        "me": me,
        "minWireVersion": 0,
        "maxWireVersion": 25,
        "maxBsonObjectSize": 16777216,
        "maxMessageSizeBytes": 48000000,
        "maxWriteBatchSize": 100000,
        "logicalSessionTimeoutMinutes": 30,
    }
