"""Command line of the benchmark."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from .brokers import Amqtt, Broker, Mosquitto, MosquittoNodelay, Parley, ParleyDurable
from .procfs import raise_file_limit
from .report import print_report, write_json
from .rounds import Plan, run
from .workloads import WORKLOADS, Effort, Workload, pair_users

BROKERS = (Parley.name, ParleyDurable.name, Mosquitto.name, MosquittoNodelay.name, Amqtt.name)
FULL = Effort(seconds=1.5, connections=2000, deadline=20)
QUICK = Effort(seconds=0.4, connections=500, deadline=10)
BUDGET_SECONDS = 220.0
PIPE_COLUMNS = 120


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; a usage error ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare CPU, throughput and memory of MQTT brokers on this machine.",
    )
    parser.add_argument("--quick", action="store_true", help="one short round, rough figures")
    parser.add_argument(
        "--only",
        type=_brokers,
        default=BROKERS,
        metavar="BROKER,...",
        help=f"measure these brokers only, of {', '.join(BROKERS)}",
    )
    parser.add_argument(
        "--workload",
        action="append",
        choices=[workload.name for workload in WORKLOADS],
        help="run this workload only; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples to FILE too")
    parser.add_argument(
        "--rounds", type=_count, metavar="N", help="report the median of N rounds (default: 3)"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Run the benchmark; 0 if every measurement was taken, 1 if any row has an error."""
    options = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    raise_file_limit()
    progress = Console(stderr=True)
    try:
        with _brokers_named(options.only) as brokers:
            plan = Plan(
                brokers=brokers,
                workloads=_workloads_named(options.workload),
                rounds=options.rounds or (1 if options.quick else 3),
                effort=QUICK if options.quick else FULL,
                budget=BUDGET_SECONDS,
            )
            versions = {each.name: each.version() for each in brokers if not each.missing()}
            with progress.status("starting") as status:
                outcomes = run(plan, status.update)
    except KeyboardInterrupt:
        progress.print("interrupted; all brokers are stopped")
        return 130
    # A file or a pipe has no width of its own, and the default of 80 would fold the notes.
    output = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    print_report(output, outcomes, versions)
    if options.json:
        write_json(options.json, outcomes, versions)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Do what Ctrl-C does, which while an event loop runs is to cancel, not to raise."""
    signal.raise_signal(signal.SIGINT)


@contextmanager
def _brokers_named(names: Sequence[str]) -> Iterator[list[Broker]]:
    """The brokers called `names`, over a directory that lasts as long as they do."""
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as directory:
        home = Path(directory)
        brokers: list[Broker] = [
            Parley(home / "parley"),
            ParleyDurable(home / "parley-durable", pair_users()),
            Mosquitto(home / "mosquitto"),
            MosquittoNodelay(home / "mosquitto-nodelay"),
            Amqtt(home / "amqtt"),
        ]
        yield [broker for broker in brokers if broker.name in names]


def _workloads_named(names: Sequence[str] | None) -> list[Workload]:
    return [each for each in WORKLOADS if not names or each.name in names]


def _brokers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = set(names) - set(BROKERS)
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown broker: {', '.join(sorted(unknown))}")
    return names


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
