"""Servers as processes: find the program, start it, wait until it answers, end it.

All workers of a run share one server of each kind. The first that needs it starts it, under a file lock. A
keeper (`keeper.py`) owns the process and ends it when the run ends, even if the run was killed.
"""

import fcntl
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

HOST = "127.0.0.1"
_ROOT = Path(__file__).resolve().parents[2]
_FOLDER = "PARLEY_TEST_SERVERS"
_CONTROLLER = "PARLEY_TEST_CONTROLLER"
_DEADLINE = 60.0


def find(program: str, package: str, folders: Sequence[Path] = ()) -> str:
    """The path of a program. Fails with what to install if it is missing."""
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        pytest.fail(f"{program} is missing, which this test needs: apt-get install {package}", pytrace=False)
    return found


def free_port() -> int:
    """A port below those that the system gives to outgoing connections, so that none of them takes it before
    the server does."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise AssertionError("a hundred ports, and none of them is free")


def as_user(name: str) -> dict[str, Any]:
    """Options of `subprocess` for a server that refuses to run as root. Others run it as themselves."""
    return {"user": name, "group": name, "extra_groups": []} if os.getuid() == 0 else {}


def folder_of(parent: Path, name: str, user: str | None = None) -> Path:
    """A new folder that belongs to the server's user."""
    folder = parent / name
    folder.mkdir()
    if user is not None and os.getuid() == 0:
        shutil.chown(folder, user, user)
    return folder


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for a server of a test's own, which the server's user can reach. (In `tmp_path` it cannot:
    pytest closes the folders above at each start of any run.)"""
    with tempfile.TemporaryDirectory(prefix="parley-server-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def wait_until(ready: Callable[[], bool], what: str, log: Path) -> None:
    """Wait until `ready()`; fails with the end of the log."""
    deadline = time.monotonic() + _DEADLINE
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what}; its log:\n{log.read_text()[-4000:]}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether something listens."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


class Process:
    """A server of a test's own, which the test may kill and start again."""

    def __init__(
        self, command: Sequence[str], log: Path, ready: Callable[[], bool], user: str | None = None
    ) -> None:
        self._command = command
        self._log = log
        self._ready = ready
        self._options = {} if user is None else as_user(user)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._options
            )
        wait_until(self._ready, self._command[0], self._log)

    def kill(self) -> None:
        """As when the machine loses its power, but for what the system still writes to disk."""
        # Those of PostgreSQL end by themselves, but later than the next start.
        children = psutil.Process(self.pid).children() if self._process is not None else []
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self._end(signal.SIGKILL)
        psutil.wait_procs(children, _DEADLINE)

    def end(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(_DEADLINE)
            finally:
                process.kill()


# --- what all workers of a run share ----------------------------------------------------


def begin_run() -> None:
    """The controller of a run calls it before there are workers: they inherit the environment."""
    folder = Path(tempfile.mkdtemp(prefix="parley-servers-"))
    folder.chmod(0o711)  # a server that runs as another user finds its own folder in it
    os.environ[_FOLDER] = str(folder)
    os.environ[_CONTROLLER] = str(os.getpid())


def end_run(keep_logs: bool) -> Path | None:
    """End all servers of the run. Returns the folder if it is kept, for the logs in it."""
    folder = Path(os.environ.pop(_FOLDER))
    for file in folder.glob("*.keeper"):
        _end_keeper(int(file.read_text()))
        file.unlink()
    if keep_logs and any(folder.glob("*.log")):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _end_keeper(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        ended, _, _ = select.select([handle], [], [], _DEADLINE)
        if not ended:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def shared(name: str, start: Callable[[Path], str]) -> str:
    """The URL of the run's server `name`. The first call of all workers starts it: `start` gets the folder
    of the run and returns the URL."""
    folder = Path(os.environ[_FOLDER])
    known = folder / f"{name}.url"
    with _locked(folder / f"{name}.lock"):
        if not known.exists():
            known.write_text(start(folder))
    return known.read_text()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def keep(
    name: str, command: Sequence[str], data: Path, ready: Callable[[], bool], user: str | None = None
) -> None:
    """Start the run's server `name` under a keeper, and wait until it is ready. `data` is removed when it has
    ended; what it prints is in `name.log` of the run's folder."""
    folder = data.parent
    log = folder / f"{name}.log"
    keeper = [sys.executable, "-m", "tests.servers.keeper", os.environ[_CONTROLLER]]
    with log.open("ab") as output:
        subprocess.run(
            [*keeper, str(folder / f"{name}.keeper"), str(data), user or "", *command],
            check=True,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C ends the run first
        )
    wait_until(ready, name, log)
