"""Starts processes, watches them, and stops them."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_SHOWN_LINES = 15
_END_WITH_PARENT = ("setpriv", "--pdeathsig", "TERM", "--")
"""Even if who started the cluster is killed, nothing is left behind."""


class ClusterError(Exception):
    """The cluster cannot run. The text is for the user."""


class Program(NamedTuple):
    """How to run a server. `user`: who runs it if root starts it; else whoever starts it does. `folder`:
    where, if not where the cluster is started."""

    name: str
    command: Sequence[str]
    log: Path
    is_ready: Callable[[], bool]
    user: str | None = None
    folder: Path | None = None


def find(program: str, package: str) -> str:
    """The path of a program of a Debian package. Raises `ClusterError` if it is missing."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise ClusterError(f"{program} is missing; install it:  sudo apt-get install {package}")
    return found


def as_user(name: str | None) -> dict[str, Any]:
    """Options of `subprocess`."""
    if name is None or os.getuid() != 0:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


class Running:
    """A started process."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        program = self.program
        with program.log.open("ab") as log:
            # In a session of its own: Ctrl-C is for who started the cluster, which stops all in order.
            return subprocess.Popen(
                [*_END_WITH_PARENT, *program.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=program.folder,
                **as_user(program.user),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def report(self) -> str:
        """That the process is gone, with the end of its log."""
        program, status = self.program, self._process.returncode
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        lines = program.log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
        end = "\n".join(f"    {line}" for line in lines)
        return f"{program.name} {how}; the end of {program.log}:\n{end}"

    def wait_until_ready(self) -> None:
        """Raises `ClusterError` if it ends, or is not ready in time."""
        deadline = time.monotonic() + _START_SECONDS
        while not self.program.is_ready():
            if self.has_ended():
                raise ClusterError(self.report())
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{self.program.name} is not ready after {_START_SECONDS:.0f} s; its log is "
                    f"{self.program.log}"
                )
            time.sleep(0.05)

    def start_again(self) -> None:
        """It has ended: start it anew."""
        self._process = self._start()

    def stop(self) -> None:
        """Ask it to end, and see to it."""
        if self.has_ended():
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
