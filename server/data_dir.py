"""The data directory: one node owns it. Its small files are written aside and renamed, so that a node
killed in between leaves the old file or the new one, never half of one."""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import msgspec

READY = "restore.ready"
"""In the data directory while `imctl restore` puts files into their places."""

_SMALL_FILES = ("admin.token", "node.json", "store.json", "token_keys.json")
"""They are made with mode 0600, but may have been copied. The stores see to their own files."""


class StartError(Exception):
    """The node cannot start here and now; the text says why."""


@contextlib.contextmanager
def own(data_dir: Path) -> Iterator[None]:
    """Create the data directory and lock it against other nodes: the file `lock`, and the directory itself,
    as the file may be deleted under a running node by somebody who takes it for a stale one.

    The kernel drops the locks when the process ends, also after kill -9.

    Raises:
        StartError: the directory cannot be created, or another node uses it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _private(data_dir / "lock")
    except OSError as error:
        raise StartError(f"data directory {data_dir}: {error.strerror}") from error
    with lock, _folder(data_dir) as folder:
        if not (_locked(lock, fcntl.LOCK_EX) and _locked(folder, fcntl.LOCK_EX)):
            raise StartError(f"data directory {data_dir} is in use by another node")
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
        with _folder(data_dir) as folder:
            if not _locked(folder, fcntl.LOCK_SH):
                return True
        with (data_dir / "lock").open("r+") as lock:
            return not _locked(lock, fcntl.LOCK_SH)
    except OSError:
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
    with _folder(folder) as opened:
        os.fsync(opened)


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[int]:
    opened = os.open(folder, os.O_RDONLY)
    try:
        yield opened
    finally:
        os.close(opened)


def _locked(opened: BinaryIO | TextIO | int, mode: int) -> bool:
    """Take a lock that nobody waits for. False if another process has it."""
    try:
        fcntl.flock(opened, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # Some network file systems lock no directory; their `lock` file has to do.
        return isinstance(opened, int) and error.errno in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP)
    return True


def _private(file: Path) -> BinaryIO:
    """Open a file for writing, empty, with mode 0600 whatever the directory and the umask allow."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with contextlib.suppress(OSError):  # an existing file keeps its mode, and may be somebody else's
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")
