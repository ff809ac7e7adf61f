"""Backups: a folder or archive of all that a node keeps in its data directory.

    parley.db        the message store, as its plugin copies it
    directory.db     accounts and groups, unless they are on a database server
    store.json       the identity of the stores
    token_keys.json, admin.token, node.json
    backup.json      the manifest; a backup without it is not whole

The directory is copied first. So whatever it says about logs is true of the messages copied after it, and
notices that are not in the logs yet are written there when the backup is used.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path

import msgspec

from bridge.handlers.admin.backups import BackupPart
from broker import VERSION
from broker.domain.errors import StoreError
from broker.ports import DirectoryUpkeep, StoreIdentity, Upkeep
from server import identity

MANIFEST = "backup.json"
KEYS = "token_keys.json"
ADMIN = "admin.token"
NODE = "node.json"
DIRECTORY = "directory.db"
FORMAT = 1
SPOOL = "backup.tmp"
"""Where the node keeps the copy while it is sent, in its data directory."""

_CHUNK = 256 * 1024


class File(msgspec.Struct, frozen=True):
    """A file of a backup."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """The contents of backup.json. `created_at`: Unix ms."""

    format: int
    version: str
    created_at: int
    store: StoreIdentity
    files: dict[str, File]


class Source:
    """Makes backups of a running node. See `bridge.handlers.admin.backups.BackupSource`.

    `others`: further files to copy, by the names that they get."""

    def __init__(
        self,
        data_dir: Path,
        stores: Upkeep,
        directory: DirectoryUpkeep,
        store: StoreIdentity,
        others: Mapping[str, Path],
    ) -> None:
        self._spool = data_dir / SPOOL
        self._stores = stores
        self._directory = directory
        self._store = store
        self._others = {**others, identity.FILE: data_dir / identity.FILE}

    async def parts(self) -> AsyncGenerator[BackupPart, None]:
        """See `BackupSource`."""
        try:
            remove(self._spool)
            self._spool.mkdir(mode=0o700)
            await self._directory.copy(self._spool)
            await self._stores.copy(self._spool)
            for name, file in self._others.items():
                if file.exists():
                    _put(self._spool / name, file.read_bytes())
            files: dict[str, File] = {}
            for file in sorted(self._spool.iterdir()):
                digest = hashlib.sha256()
                async for part in _read(file, digest.update):
                    yield part
                files[file.name] = File(file.stat().st_size, digest.hexdigest())
            manifest = Manifest(FORMAT, VERSION, time.time_ns() // 1_000_000, self._store, files)
            document = msgspec.json.format(msgspec.json.encode(manifest))
            yield BackupPart(MANIFEST, len(document), document)
        except OSError as error:
            raise StoreError(f"cannot copy the data directory: {error}") from error
        finally:
            remove(self._spool)


async def _read(file: Path, look: Callable[[bytes], object]) -> AsyncGenerator[BackupPart, None]:
    """The parts of a file, at each of which `look` looks, on a thread."""
    size = file.stat().st_size
    with file.open("rb") as opened:

        def read() -> bytes:
            data = opened.read(_CHUNK)
            look(data)
            return data

        while data := await asyncio.to_thread(read):
            yield BackupPart(file.name, size, data)


def _put(file: Path, content: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)


def remove(folder: Path) -> None:
    """Remove a folder, if it exists. Raises `OSError`."""
    if folder.exists():
        shutil.rmtree(folder)
