"""The report: tables with ratios for people, JSON for programs."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .rounds import Outcome
from .workloads import WORKLOADS, Sample

REFERENCE = "mosquitto"
# CPU seconds per second from which a process counts as having none to spare.
BUSY = 0.9

LEGEND = f"""\
Each × is the ratio to {REFERENCE} in this run: the lower the better for CPU and memory, the \
higher the better per second.
CPU µs: broker user and system time for each message delivered (for each connect).
≥: the load generator was at its limit and the broker was not, so it can do more.
mosquitto runs with its default for TCP_NODELAY, off, which lowers its CPU figures and raises its \
latency; mosquitto-nodelay runs with it on, as asyncio brokers do."""


def print_report(console: Console, outcomes: Sequence[Outcome], versions: Mapping[str, str]) -> None:
    """Print what was measured, each broker beside REFERENCE."""
    speed = [outcome for outcome in outcomes if outcome.workload != "idle"]
    memory = [outcome for outcome in outcomes if outcome.workload == "idle"]
    if speed:
        console.print(_speed_table(speed))
    if memory:
        console.print(_memory_table(memory))
    console.print(LEGEND, style="dim", highlight=False)
    names = (f"{name} ({version})" for name, version in versions.items())
    console.print("Brokers:", ", ".join(names) or "none", style="dim", highlight=False)


def write_json(path: Path, outcomes: Sequence[Outcome], versions: Mapping[str, str]) -> None:
    """Write every sample and the medians; the units are those of workloads.Sample."""
    results = [
        {
            "workload": outcome.workload,
            "broker": outcome.broker,
            "error": outcome.error,
            "median": asdict(outcome.median()),
            "samples": [asdict(sample) for sample in outcome.samples],
        }
        for outcome in outcomes
    ]
    document = {
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "versions": dict(versions),
        "results": results,
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def _speed_table(outcomes: Sequence[Outcome]) -> Table:
    table = _table("Speed", "workload", "broker", "CPU µs", "×", "per second", "×")
    for title, reference, group in _by_workload(outcomes):
        table.add_section()
        for outcome in group:
            middle = outcome.median()
            table.add_row(
                title if outcome is group[0] else "",
                outcome.broker,
                _number(middle.cpu_us),
                _ratio(middle.cpu_us, reference.cpu_us),
                _at_least(middle) + _number(middle.rate),
                _ratio(middle.rate, reference.rate),
                outcome.error,
            )
    return table


def _memory_table(outcomes: Sequence[Outcome]) -> Table:
    table = _table("Resident memory", "broker", "idle node, MB", "×", "KB per idle client", "×")
    for _, reference, group in _by_workload(outcomes):
        for outcome in group:
            middle = outcome.median()
            table.add_row(
                outcome.broker,
                _number(middle.idle_mb),
                _ratio(middle.idle_mb, reference.idle_mb),
                _number(middle.connection_kb),
                _ratio(middle.connection_kb, reference.connection_kb),
                outcome.error,
            )
    return table


def _table(title: str, *headings: str) -> Table:
    """Names to the left, figures to the right, and a last column for what went wrong."""
    table = Table(title=title, title_justify="left")
    for heading in headings:
        named = heading in ("workload", "broker")
        table.add_column(heading, justify="left" if named else "right", no_wrap=True)
    table.add_column("note")
    return table


def _by_workload(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Sample, list[Outcome]]]:
    """The title, the median of REFERENCE and the outcomes of each workload, in order."""
    titles = {workload.name: workload.title for workload in WORKLOADS}
    for name, members in groupby(outcomes, key=lambda outcome: outcome.workload):
        group = list(members)
        reference = [outcome.median() for outcome in group if outcome.broker == REFERENCE]
        yield titles[name], reference[0] if reference else Sample(), group


def _at_least(sample: Sample) -> str:
    """The mark of a rate that the load generator limited."""
    broker_share = (sample.rate or 0) * (sample.cpu_us or 0) / 1e6
    return "≥ " if (sample.generator_share or 0) > BUSY > broker_share else ""


def _number(value: float | None) -> str:
    """Three significant digits or all before the point, whichever is more."""
    if value is None:
        return "–"
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def _ratio(value: float | None, reference: float | None) -> str:
    return _number(value / reference) if value is not None and reference else "–"
