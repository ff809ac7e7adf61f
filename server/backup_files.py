"""Backups as files of mode 0600: in a folder, or in an archive (`.tar`, `.tar.gz`, `.tgz`)."""

import hashlib
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import msgspec

from server.backups import FORMAT, MANIFEST, File, Manifest
from server.data_dir import sync_folder

_CHUNK = 1024 * 1024
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


class BackupError(Exception):
    """A backup cannot be written or used; the text says why."""


class Part(Protocol):
    """See `bridge.handlers.admin.backups.BackupPart`."""

    @property
    def file(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def data(self) -> bytes: ...


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Sent(NamedTuple):
    """A file on its way."""

    name: str
    size: int
    content: _Readable


def is_archive(path: Path) -> bool:
    """Whether a backup with this name is one file."""
    return path.name.endswith((".tar", ".tar.gz", ".tgz"))


# --- writing --------------------------------------------------------------------------


def write_backup(target: Path, parts: Iterable[Part]) -> None:
    """Write a backup. It has its name only once it is whole and on disk.

    Raises:
        BackupError: the name is taken, or the backup is not whole.
        OSError: it cannot be written.
    """
    if target.exists() and (is_archive(target) or not target.is_dir() or any(target.iterdir())):
        raise BackupError(f"{target} exists already")
    partial = target.with_name(target.name + ".partial")
    _discard(partial)
    try:
        (_write_archive if is_archive(target) else _write_folder)(partial, _whole(_sent(parts)))
        partial.replace(target)
        sync_folder(target.absolute().parent)
    finally:
        _discard(partial)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sent(parts: Iterable[Part]) -> Iterator[_Sent]:
    for name, group in groupby(parts, lambda part: part.file):
        if _PLAIN.fullmatch(name) is None:
            raise BackupError(f"the node has sent a file with the name {name[:200]!r}")
        several = iter(group)
        first = next(several)
        yield _Sent(name, first.size, _Parts(chain([first], several)))


def _whole(files: Iterable[_Sent]) -> Iterator[_Sent]:
    """The files of a backup, which is whole if the last one is its manifest."""
    name = ""
    for file in files:
        name = file.name
        yield file
    if name != MANIFEST:
        raise BackupError("the node has ended the backup before it was whole")


class _Parts:
    """The parts of a file, to be read."""

    def __init__(self, parts: Iterator[Part]) -> None:
        self._parts = parts
        self._rest = b""

    def read(self, size: int = -1, /) -> bytes:
        while not self._rest and (part := next(self._parts, None)) is not None:
            self._rest = part.data
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _create(file: Path) -> IO[bytes]:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _finish(out: IO[bytes]) -> None:
    out.flush()
    os.fsync(out.fileno())


def _write_folder(folder: Path, files: Iterable[_Sent]) -> None:
    folder.mkdir(mode=0o700)
    for file in files:
        with _create(folder / file.name) as out:
            shutil.copyfileobj(file.content, out, _CHUNK)
            _finish(out)
    sync_folder(folder)


def _write_archive(archive: Path, files: Iterable[_Sent]) -> None:
    is_compressed = not archive.name.removesuffix(".partial").endswith(".tar")
    with _create(archive) as out:
        with tarfile.open(fileobj=out, mode="w|gz" if is_compressed else "w|") as tar:
            for file in files:
                tar.addfile(_Member(file), _Exactly(file))
        _finish(out)


class _Member(tarfile.TarInfo):
    def __init__(self, file: _Sent) -> None:
        super().__init__(file.name)
        self.size = file.size
        self.mode = 0o600


class _Exactly:
    """tarfile takes less than it has asked for as the end of the file."""

    def __init__(self, file: _Sent) -> None:
        self._content = file.content

    def read(self, size: int = -1, /) -> bytes:
        data = self._content.read(size)
        while len(data) < size and (more := self._content.read(size - len(data))):
            data += more
        return data


# --- reading --------------------------------------------------------------------------


def read_backup(backup: Path, folder: Path) -> Manifest:
    """Copy the files of a backup into a new folder, and check that they are what the node has sent.

    Raises:
        BackupError: it is no backup, not whole, or not what it was.
        OSError: a file cannot be read or written.
    """
    folder.mkdir(mode=0o700)
    found: dict[str, File] = {}
    try:
        for file in _in_archive(backup) if backup.is_file() else _in_folder(backup):
            with _create(folder / file.name) as out:
                found[file.name] = _copy(file.content, out)
                _finish(out)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BackupError(f"{backup} is no backup, or not whole: {error}") from error
    manifest = _read_manifest(backup, folder / MANIFEST)
    for name, expected in manifest.files.items():
        if name not in found:
            raise BackupError(f"{backup} is not whole: {name} is missing")
        if found[name] != expected:
            raise BackupError(f"{backup} is damaged: {name} is not what was backed up")
    for name in found.keys() - manifest.files.keys():
        (folder / name).unlink()
    return manifest


def _in_folder(backup: Path) -> Iterator[_Sent]:
    for path in sorted(backup.iterdir()):
        if _PLAIN.fullmatch(path.name) is not None and path.is_file():
            with path.open("rb") as opened:
                yield _Sent(path.name, 0, opened)


def _in_archive(backup: Path) -> Iterator[_Sent]:
    with tarfile.open(backup, "r|*") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if _PLAIN.fullmatch(name) is not None and (content := tar.extractfile(member)) is not None:
                yield _Sent(name, member.size, content)


def _copy(source: _Readable, out: IO[bytes]) -> File:
    digest = hashlib.sha256()
    size = 0
    while data := source.read(_CHUNK):
        digest.update(data)
        size += len(data)
        out.write(data)
    return File(size, digest.hexdigest())


def _read_manifest(backup: Path, file: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode(file.read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise BackupError(f"{backup} is no backup, or not whole: it has no {MANIFEST}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackupError(f"{backup} is damaged: {MANIFEST}: {error}") from None
    if manifest.format > FORMAT:
        raise BackupError(f"{backup} was made by version {manifest.version}: use that or a newer one")
    return manifest
