"""Restoring a backup into the data directory of a node that does not run.

read      into `restore.tmp`, with the sums of the manifest
prepare   there: the stores get a new generation, and every session learns what was lost
replace   from here on (`restore.ready`) a node refuses to start until the restore was finished. The files
          that were there go into `replaced-<time>`, then those of the backup take their places
"""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from broker.amqtt_edge.loading import Persistence, find_persistence
from broker.clock import SystemClock
from broker.config import Config, load
from broker.domain.errors import StoreError
from broker.ports import StoreContext, StoreIdentity, Stores
from plugins.auth.passwords import Passwords
from plugins.persistence.sql_directory import open_directory
from server import identity
from server.backup_files import BackupError, read_backup
from server.backups import DIRECTORY, NODE, Manifest, remove
from server.data_dir import READY, StartError, own, sync_folder
from server.restored_sessions import mark_sessions

STAGE = "restore.tmp"

_STEP = 2**20


class Restored(msgspec.Struct, frozen=True):
    """What a restore has done."""

    store: StoreIdentity
    created_at: int
    """Unix ms at which the backup was made."""
    sessions: int
    replaced: Path | None
    """Where the files are that were there before; None if there were none."""


def restore(backup: Path, config_file: Path, data_dir: Path) -> Restored:
    """Put a backup in the place of all that a data directory holds.

    Raises:
        BackupError: it is no whole backup of a node, or does not fit to the configuration.
        ConfigError: the configuration is wrong.
        StartError: a node uses the data directory.
        StoreError, OSError: the files cannot be read or written.
    """
    if not backup.exists():  # `own` would create a data directory for nothing
        raise BackupError(f"there is no backup {backup}: no such file or folder")
    config = load(config_file, os.environ, [], data_dir)
    with config.naming_sources():
        persistence = find_persistence(config.plugins)
        with own(config.data_dir):
            return asyncio.run(_restore(backup, config, persistence))


async def _restore(backup: Path, config: Config, persistence: Persistence) -> Restored:
    data_dir = config.data_dir
    stage = data_dir / STAGE
    remove(stage)
    try:
        manifest = read_backup(backup, stage)
        if DIRECTORY in manifest.files and config.storage.directory_url is not None:
            raise BackupError(f"{backup} has a directory, and storage.directory_url names another one")
        (stage / NODE).unlink(missing_ok=True)  # of a node that ran when the backup was made
        store = _next(manifest.store, _kept(data_dir))
        sessions = await _prepare(stage, config, persistence, manifest, store)
        # Before the stores have their places, so that a restore that is interrupted can be begun again.
        if DIRECTORY not in manifest.files:
            await _identify_directory(str(config.storage.directory_url), store)
        replaced = _replace(stage, data_dir)
    finally:
        remove(stage)
    return Restored(store, manifest.created_at, sessions, replaced)


def _kept(data_dir: Path) -> StoreIdentity | None:
    try:
        kept = identity.read_kept(data_dir)
    except StartError:  # damaged: one reason to restore
        return None
    return None if kept is None else kept.identity


def _next(backup: StoreIdentity, kept: StoreIdentity | None) -> StoreIdentity:
    """The restored store's identity. By a random step: a backup that is restored twice, perhaps on another
    host, does not get the same generation twice."""
    known = [backup.generation] if kept is None else [backup.generation, kept.generation]
    return StoreIdentity(backup.id, max(known) + 1 + secrets.randbelow(_STEP))


async def _prepare(
    stage: Path, config: Config, persistence: Persistence, manifest: Manifest, store: StoreIdentity
) -> int:
    """Returns the number of sessions."""
    async with _opened(persistence, stage) as stores:
        async with _former(persistence, config.data_dir, manifest.store) as former:
            sessions = await mark_sessions(stores, former, SystemClock().now_ms())
        await stores.identified.set_store_identity(store)
    if DIRECTORY in manifest.files:
        await _identify_directory(f"sqlite:///{(stage / DIRECTORY).absolute()}", store)
    identity.keep(stage, store)
    return sessions


@asynccontextmanager
async def _opened(persistence: Persistence, data_dir: Path) -> AsyncIterator[Stores]:
    stores = await persistence.open(StoreContext(data_dir))
    try:
        yield stores
    finally:
        await stores.close()


@asynccontextmanager
async def _former(
    persistence: Persistence, data_dir: Path, store: StoreIdentity
) -> AsyncIterator[Stores | None]:
    """The stores that are replaced, if they can be read and the backup is an earlier state of them."""
    if _kept(data_dir) != store:
        yield None
        return
    async with AsyncExitStack() as stack:
        try:
            former: Stores | None = await stack.enter_async_context(_opened(persistence, data_dir))
            if former is not None and await former.identified.store_identity() != store:
                former = None
        except StoreError:  # damaged: one reason to restore
            former = None
        yield former


async def _identify_directory(url: str, store: StoreIdentity) -> None:
    passwords = Passwords()
    try:
        directory = await open_directory(url, passwords.hash, SystemClock().now_ms)
        try:
            await directory.set_store_identity(store)
        finally:
            await directory.close()
    finally:
        passwords.close()


# --- replacing ------------------------------------------------------------------------


def _replace(stage: Path, data_dir: Path) -> Path | None:
    ready = data_dir / READY
    remove(ready)
    stage.rename(ready)
    sync_folder(data_dir)
    names = [file.name for file in ready.iterdir()]
    replaced = _put_aside(data_dir, _with_logs([*names, NODE]))
    for name in names:
        (ready / name).rename(data_dir / name)
    sync_folder(data_dir)
    remove(ready)
    return replaced


def _with_logs(names: Iterable[str]) -> list[str]:
    """The files with what SQLite keeps beside them, which must not stay with another database."""
    return [name + ending for name in names for ending in ("", "-wal", "-shm", "-journal")]


def _put_aside(data_dir: Path, names: Iterable[str]) -> Path | None:
    there = [name for name in names if (data_dir / name).exists()]
    if not there:
        return None
    replaced = data_dir / time.strftime("replaced-%Y%m%d-%H%M%S")
    number = 0
    while replaced.exists():
        number += 1
        replaced = replaced.with_name(f"{replaced.name.partition('.')[0]}.{number}")
    replaced.mkdir(mode=0o700)
    for name in there:
        (data_dir / name).rename(replaced / name)
    return replaced
