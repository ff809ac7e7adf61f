"""Keeps a server while a test run lasts: `keeper CONTROLLER PID_FILE DATA USER COMMAND...`.

It ends the server and removes its data when it gets SIGTERM, or when the process CONTROLLER has gone.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.servers.processes import as_user

_SECONDS_TO_END = 10


def main(controller: str, pid_file: str, data: str, user: str, *command: str) -> None:
    if os.fork():
        return  # whoever started it does not wait for it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    server = subprocess.Popen(command, **as_user(user) if user else {})
    try:
        Path(pid_file).write_text(str(os.getpid()))
        with suppress(ProcessLookupError):
            select.select([os.pidfd_open(int(controller))], [], [])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end(server)
        shutil.rmtree(data, ignore_errors=True)
        _remove_folder(Path(pid_file), controller)


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _remove_folder(pid_file: Path, controller: str) -> None:
    """If the run was killed, nobody else removes what is left; the logs stay."""
    if not Path(f"/proc/{controller}").exists():
        for file in pid_file.parent.glob(f"{pid_file.stem}.*"):
            if file.suffix != ".log":
                file.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
