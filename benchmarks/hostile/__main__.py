"""Command line of `make hostile`."""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.loadgen import BenchmarkError
from benchmarks.procfs import cpu_seconds, raise_file_limit, rss_kb
from benchmarks.trees import ROOT

from .attacks import ATTACKS
from .probes import LOGIN_EVERY, Probes, probing
from .town import Target, Town, town
from .verdicts import Row, Times

SECONDS = 5.0
IDLE_SECONDS = 8.0
RECOVERY_SECONDS = 5.0
QUIET_SECONDS = 0.5
"""Others have recovered if this much of their work was done as on an idle node."""
STEP = 0.05
BUDGET_SECONDS = 125.0
PIPE_COLUMNS = 120

LEGEND = """\
PUBACK, users.get: the 99th percentile of what others wait, in ms, with one publish every 10 ms and one call \
every 20 ms.
login: the longest first login with a password in ms, of one every 400 ms.
memory: of the node, before the attack and at its peak, in MiB. CPU: cores that the node used.
recovery: seconds from the end of the attack until others notice nothing."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options. A usage error ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hostile",
        description="Flood a node as shipped, one attack after the other, and time what others do meanwhile.",
        epilog="Exit status: 0 if no attack delays others by more than 50 ms or twice the idle time, "
        "whichever is more; 1 if one does; 2 for wrong usage.",
    )
    parser.add_argument(
        "--attack", action="append", choices=list(ATTACKS), help="only this attack; may be repeated"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="S", help="how long each lasts (default: 5)"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Run the attacks. Returns the exit status as described in `--help`."""
    options = parse()
    raise_file_limit()
    names = options.attack or list(ATTACKS)
    # The last one may not fit.
    seconds = min(options.seconds, (BUDGET_SECONDS - IDLE_SECONDS) / len(names) - 1.5)
    output = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    try:
        with tempfile.TemporaryDirectory(prefix="parley-hostile-") as home:
            newcomers = round((IDLE_SECONDS + len(names) * (seconds + 1)) / LOGIN_EVERY)
            with town(Path(home), newcomers) as place:
                idle, rows = uvloop.run(_measure(place, names, seconds, Console(stderr=True)))
    except BenchmarkError as error:
        print(f"python -m benchmarks.hostile: {error}", file=sys.stderr)
        return 1
    _print(output, idle, rows)
    return 1 if any(row.failed(idle.limits()) for row in rows) else 0


async def _measure(
    place: Town, names: Sequence[str], seconds: float, progress: Console
) -> tuple[Times, list[Row]]:
    rows = []
    with progress.status("idle") as status:
        async with probing(place) as probes:
            start = time.monotonic()
            await asyncio.sleep(IDLE_SECONDS)
            idle = _times(probes, start, time.monotonic())
            for name in names:
                status.update(f"{ATTACKS[name][0]}")
                rows.append(await _attacked(place, probes, name, seconds, idle.limits()))
    return idle, rows


async def _attacked(place: Town, probes: Probes, name: str, seconds: float, limits: Times) -> Row:
    before, used, start = rss_kb(place.pid), cpu_seconds(place.pid), time.monotonic()
    peak = before
    with _attacker(name, place.target) as process:
        while time.monotonic() < start + seconds:
            await asyncio.sleep(STEP)
            peak = max(peak, rss_kb(place.pid))
            _check(process, probes, name)
        cpu = (cpu_seconds(place.pid) - used) / (time.monotonic() - start)
    end = time.monotonic()
    recovery = await _recovery(probes, end, limits)
    times = _times(probes, start, end)
    return Row(ATTACKS[name][0], times, before, max(peak, rss_kb(place.pid)), cpu, recovery)


@contextmanager
def _attacker(name: str, target: Target) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.hostile.attacks", name]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True)
    assert process.stdin is not None
    try:
        process.stdin.write(target.to_json() + "\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def _check(process: subprocess.Popen[str], probes: Probes, name: str) -> None:
    if process.poll() is not None:
        raise BenchmarkError(f"the attacker {name} has ended with status {process.returncode}")
    if probes.lost is not None:
        raise BenchmarkError(f"{name}: the node has closed the connection of {probes.lost}")


async def _recovery(probes: Probes, end: float, limits: Times) -> float | None:
    """Seconds from the end of an attack until nothing that others began since then took too long."""
    while (now := time.monotonic()) < end + RECOVERY_SECONDS:
        await asyncio.sleep(STEP)
        since = now - QUIET_SECONDS
        if since >= end and not _times(probes, since, now).exceeds(limits):
            return since - end
    return None


def _times(probes: Probes, start: float, end: float) -> Times:
    return Times.of(*(series.between(start, end) for series in probes))


def _print(output: Console, idle: Times, rows: Sequence[Row]) -> None:
    table = Table("attack", *("PUBACK", "users.get", "login", "memory", "CPU", "recovery", ""))
    limits = idle.limits()
    table.add_row("none", *_milliseconds(idle), "", "", "", "")
    table.add_row("goal", *_milliseconds(limits), "", "", "", "", end_section=True)
    for row in rows:
        memory = f"{row.rss_before / 1024:.0f} → {row.rss_peak / 1024:.0f}"
        recovery = "never" if row.recovery is None else f"{row.recovery:.1f} s"
        verdict = "too slow" if row.failed(limits) else ""
        table.add_row(row.title, *_milliseconds(row.times), memory, f"{row.cpu:.1f}", recovery, verdict)
    output.print(table)
    output.print(LEGEND, style="dim", highlight=False)


def _milliseconds(times: Times) -> tuple[str, str, str]:
    login = f"{times.login * 1e3:.0f}" if times.login else "–"  # none was begun
    return f"{times.publish * 1e3:.1f}", f"{times.call * 1e3:.1f}", login


if __name__ == "__main__":
    sys.exit(main())
