"""The data directory: one node owns it. Its small files are written aside and renamed, so that a node
killed in between leaves the old file or the new one, never half of one."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

READY = "restore.ready"
"""In the data directory while `imctl restore` puts files into their places."""

_SMALL_FILES = ("admin.token", "node.json", "store.json", "token_keys.json")
"""They are made with mode 0600, but may have been copied. The stores see to their own files."""


class StartError(Exception):
    """The node cannot start here and now; the text says why."""


@contextlib.contextmanager
def own(data_dir: Path) -> Iterator[None]:
    """Create the data directory and lock it against other nodes.

    The kernel drops the lock when the process ends, also after kill -9.

    Raises:
        StartError: the directory cannot be created, or another node uses it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _private(data_dir / "lock")
    except OSError as error:
        raise StartError(f"data directory {data_dir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StartError(f"data directory {data_dir} is in use by another node") from None
        for name in _SMALL_FILES:
            with contextlib.suppress(OSError):  # there is none, or it is somebody else's
                (data_dir / name).chmod(0o600)
        yield


def need_whole(data_dir: Path) -> None:
    """Raises `StartError` if a restore was interrupted while it put files into their places."""
    if (data_dir / READY).exists():
        raise StartError(f"{data_dir}: a restore was interrupted: run imctl restore again")


def is_in_use(data_dir: Path) -> bool:
    """Whether a node uses the data directory. One that cannot be looked at is not in use."""
    try:
        lock = (data_dir / "lock").open("r+")
    except OSError:
        return False
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def admin_token(data_dir: Path) -> str:
    """imctl's token, created at the first start. Raises `StartError` if the file holds no token."""
    file = data_dir / "admin.token"
    if file.exists():
        token = file.read_bytes().strip().decode(errors="replace")
        if not token.isascii() or not token.isprintable() or not token:
            raise StartError(f"{file} holds no token: delete it, and the node creates a new one")
        return token
    token = secrets.token_urlsafe(32)
    temporary = file.with_suffix(".tmp")
    with _private(temporary) as out:
        out.write(f"{token}\n".encode())
    temporary.replace(file)
    return token


def write(file: Path, value: object) -> None:
    """Replace a file by a value as JSON. On return it survives a power cut."""
    temporary = file.with_suffix(".tmp")
    with _private(temporary) as out:
        out.write(msgspec.json.encode(value))
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in a folder are on disk."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _private(file: Path) -> BinaryIO:
    """Open a file for writing, empty, with mode 0600 whatever the directory and the umask allow."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with contextlib.suppress(OSError):  # an existing file keeps its mode, and may be somebody else's
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")
