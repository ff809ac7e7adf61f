"""How a node reaches the servers."""

from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import msgspec
from bson.codec_options import TypeDecoder, TypeRegistry
from bson.int64 import Int64


class Options(msgspec.Struct, frozen=True):
    """How to reach the servers. Times are in milliseconds."""

    uri: str
    database: str
    pool_min: int
    pool_max: int
    pool_idle: int
    connect_timeout: int
    select_timeout: int
    socket_timeout: int
    write_timeout: int
    settle_timeout: int
    compressors: str


def driver_settings(options: Options) -> dict[str, Any]:
    """The options of the driver's client. Writes are confirmed by a majority with their journals."""
    return {
        "appname": "parley",
        "w": "majority",
        "journal": True,
        "wTimeoutMS": options.write_timeout,
        "readConcernLevel": "majority",
        "readPreference": "primary",
        "minPoolSize": options.pool_min,
        "maxPoolSize": options.pool_max,
        "maxIdleTimeMS": options.pool_idle,
        "waitQueueTimeoutMS": options.select_timeout,
        "connectTimeoutMS": options.connect_timeout,
        "serverSelectionTimeoutMS": options.select_timeout,
        "socketTimeoutMS": options.socket_timeout,
        "compressors": _available(options.compressors),
        "type_registry": TypeRegistry([_PlainInt()]),
    }


class _PlainInt(TypeDecoder):
    """What does not fit into 32 bits comes back as a kind of integer of the driver's own, which no encoder of
    replies takes."""

    bson_type = Int64

    def transform_bson(self, value: int) -> int:
        return int(value)


def _available(compressors: str) -> str:
    """The driver has zstd only where a package of its own is installed; it warns of what it does not have."""
    has_zstd = find_spec("backports") is not None and find_spec("backports.zstd") is not None
    return ",".join(name for name in compressors.split(",") if name != "zstd" or has_zstd)


def servers_of(options: Options) -> str:
    """The servers and the database, without user name and password."""
    return f"{urlsplit(options.uri).netloc.rpartition('@')[2]}/{options.database}"
