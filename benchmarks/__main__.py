"""Command line of the benchmark."""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from . import against
from .brokers import Amqtt, Broker, Mosquitto, MosquittoNodelay, Parley, ParleyDurable
from .loadgen import BenchmarkError
from .procfs import raise_file_limit
from .report import comparison_document, print_comparison, print_report, write_json
from .rounds import Plan, run
from .trees import RevisionError
from .workloads import WORKLOADS, Effort, Workload, pair_users

BROKERS = (Parley.name, ParleyDurable.name, Mosquitto.name, MosquittoNodelay.name, Amqtt.name)
FULL = Effort(seconds=1.5, connections=2000, deadline=20)
QUICK = Effort(seconds=0.4, connections=500, deadline=10)
BUDGET_SECONDS = 220.0
ROUNDS = 3
AGAINST_ROUNDS = 10
PIPE_COLUMNS = 120


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options. A usage error ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compare CPU, throughput and memory of MQTT brokers on this machine.",
        epilog="Exit status: 0 if every measurement was taken and, with --against, nothing is slower or "
        "larger; 1 if not; 2 for wrong usage.",
    )
    parser.add_argument("--quick", action="store_true", help="short measurements, rough figures")
    parser.add_argument(
        "--only",
        type=_brokers,
        metavar="BROKER,...",
        help=f"measure only these brokers; known are {', '.join(BROKERS)}",
    )
    parser.add_argument(
        "--workload",
        action="append",
        choices=[workload.name for workload in WORKLOADS],
        help="run only this workload; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples to FILE, as JSON")
    parser.add_argument(
        "--rounds",
        type=_count,
        metavar="N",
        help=f"take N rounds (default: {ROUNDS}, with --quick 1, with --against {AGAINST_ROUNDS})",
    )
    parser.add_argument(
        "--against",
        metavar="REV",
        help="compare the working tree with git revision REV instead of with other brokers",
    )
    parser.add_argument(
        "--threshold",
        type=_share,
        default=0.01,
        metavar="X",
        help="with --against: ignore differences of up to X (default: 0.01, that is one per cent)",
    )
    options = parser.parse_args(arguments)
    others = set(options.only or ()) - set(against.BROKERS)
    if options.against is not None and others:
        parser.error(f"--against compares trees of Parley, not {', '.join(sorted(others))}")
    if options.rounds is None:
        options.rounds = AGAINST_ROUNDS if options.against is not None else 1 if options.quick else ROUNDS
    return options


def main() -> int:
    """Run the benchmark. Returns the exit status as described in `--help`, or 130 after Ctrl-C."""
    options = parse()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    raise_file_limit()
    # A file or pipe has no width, and the default of 80 columns would fold the notes.
    output = Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    measure = _measure_trees if options.against is not None else _measure_brokers
    try:
        with tempfile.TemporaryDirectory(prefix="parley-bench-") as directory:
            return measure(options, Path(directory), output, Console(stderr=True))
    except KeyboardInterrupt:
        return _complain("interrupted; all brokers are stopped", 130)
    except RevisionError as error:
        return _complain(str(error), 2)
    except BenchmarkError as error:
        return _complain(str(error), 1)


def _measure_brokers(options: argparse.Namespace, home: Path, output: Console, progress: Console) -> int:
    """Compare brokers. Returns the exit status."""
    brokers = _brokers_named(options.only or BROKERS, home)
    workloads = _workloads_named(options.workload)
    plan = Plan(brokers, workloads, options.rounds, _effort(options), BUDGET_SECONDS)
    versions = {each.name: each.version() for each in brokers if not each.missing()}
    with progress.status("starting") as status:
        outcomes = run(plan, status.update)
    print_report(output, outcomes, versions)
    if options.json:
        write_json(options.json, outcomes, versions)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _measure_trees(options: argparse.Namespace, home: Path, output: Console, progress: Console) -> int:
    """Compare the working tree with a revision. Returns the exit status."""
    request = against.Request(
        revision=options.against,
        brokers=options.only or against.BROKERS,
        workloads=_workloads_named(options.workload),
        rounds=options.rounds,
        effort=_effort(options),
        threshold=options.threshold,
    )
    say = partial(progress.print, soft_wrap=True, highlight=False, markup=False)
    with progress.status("starting") as status:
        result = against.measure(request, home, say, status.update)
    print_comparison(output, result.comparisons, result.other, options.threshold)
    if options.json:
        comparisons = [comparison_document(each) for each in result.comparisons]
        more = {"against": result.other, "threshold": options.threshold, "comparisons": comparisons}
        write_json(options.json, result.outcomes, result.versions, **more)
    return 1 if any(comparison.failed for comparison in result.comparisons) else 0


def _effort(options: argparse.Namespace) -> Effort:
    return QUICK if options.quick else FULL


def _complain(text: str, status: int) -> int:
    """Print an error as one line, which is not folded at the terminal's width. Returns `status`."""
    print(f"python -m benchmarks: {text}", file=sys.stderr)
    return status


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Act as Ctrl-C does. While an event loop runs, that cancels its main task instead of raising."""
    signal.raise_signal(signal.SIGINT)


def _brokers_named(names: Sequence[str], home: Path) -> list[Broker]:
    """The brokers with these names. The directory `home` must exist as long as they are used."""
    brokers: list[Broker] = [
        Parley(home / "parley"),
        ParleyDurable(home / "parley-durable", pair_users()),
        Mosquitto(home / "mosquitto"),
        MosquittoNodelay(home / "mosquitto-nodelay"),
        Amqtt(home / "amqtt"),
    ]
    return [broker for broker in brokers if broker.name in names]


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


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("must be at least 0 and below 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
