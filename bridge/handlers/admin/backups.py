"""Backups of the whole node: `admin.backup`."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

import msgspec

from bridge.core.operations import Caller, Operations, Parameters
from broker.domain.errors import RefusedError, StoreError


class BackupParameters(Parameters):
    """There are none."""


class BackupPart(msgspec.Struct):
    """The next bytes of a file of the backup."""

    file: str
    """The name of the file. Its parts come one after the other."""
    size: int
    """The size of the whole file."""
    data: bytes


class BackupSource(Protocol):
    """Where backups come from."""

    def parts(self) -> AsyncGenerator[BackupPart, None]:
        """Copy all that is stored, and return the copy. Raises `StoreError` if that is not possible,
        `RefusedError` (`not_supported`) if the node's store cannot be copied."""
        ...


class Backups:
    """The handler."""

    def __init__(self, source: BackupSource | None) -> None:
        self._source = source
        self._running = False

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("admin.backup", self.backup)

    async def backup(self, caller: Caller, parameters: BackupParameters) -> AsyncIterator[BackupPart]:
        """Copy all that is stored as of one moment, and the node's keys, and stream the files. The last one,
        `backup.json`, lists the others: without it the backup is not whole. The node serves meanwhile. It
        needs as much free disk space as the stores take."""
        if self._source is None:
            raise RefusedError("not_supported", "the store of this node cannot be copied")
        return self._parts(self._source)

    async def _parts(self, source: BackupSource) -> AsyncIterator[BackupPart]:
        if self._running:
            raise RefusedError("conflict", "another backup is running")
        self._running = True
        parts = source.parts()
        try:
            async for part in parts:
                yield part
        except StoreError as error:
            raise RefusedError("unavailable", str(error)) from error
        finally:
            self._running = False
            await parts.aclose()
