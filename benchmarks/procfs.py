"""CPU time and memory of a process, as the kernel accounts them (Linux /proc, see proc(5))."""

import os
import resource
from pathlib import Path

from .loadgen import BenchmarkError

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_KB_PER_PAGE = os.sysconf("SC_PAGE_SIZE") / 1024


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads in seconds. The resolution is a clock tick, usually 10 ms."""
    # The command name may hold spaces and parentheses. The other fields follow its last parenthesis.
    fields = _read(pid, "stat").rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) / _TICKS_PER_SECOND


def rss_kb(pid: int) -> float:
    """Resident memory in KiB, shared pages included."""
    return int(_read(pid, "statm").split()[1]) * _KB_PER_PAGE


def raise_file_limit() -> None:
    """Raise the soft limit on open files to the hard limit. The brokers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError as error:
        raise BenchmarkError("the broker process has ended") from error
