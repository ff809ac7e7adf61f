"""The report: tables with ratios for people, JSON for programs."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from .brokers import ParleyDurable
from .comparison import CONFIDENCE, MEMORY, Comparison, Range, confidence_interval, quartiles
from .rounds import Outcome
from .workloads import WORKLOADS, Sample

REFERENCE = "mosquitto"
# The width of a comparison. A narrower terminal folds its lines, which loses no figure.
COMPARISON_COLUMNS = 125

LEGEND = f"""\
Each × is the ratio to {REFERENCE} in this run. Lower is better for CPU and memory, higher is better per \
second.
CPU µs: user and system time of the broker per message delivered, or per connect.
≥: the load generator was at its limit and the broker was not, so the broker can do more.
mosquitto runs with TCP_NODELAY off, its default, which lowers its CPU figures and raises its latency. \
mosquitto-nodelay runs with it on, as asyncio brokers do."""

COMPARISON_LEGEND = f"""\
this tree: the working tree. ×: the ratio of its median to that of {{label}}.
per round: the median of the ratios within each round, then their quartiles, then the interval that holds \
the true median with {CONFIDENCE:.0%} confidence.
slower (larger): the whole interval is on the worse side of 1, and the median is worse than 1 by more than \
{{threshold:.1%}}.
CPU µs: user and system time of the broker per message delivered, or per connect."""


def print_report(console: Console, outcomes: Sequence[Outcome], versions: Mapping[str, str]) -> None:
    """Print the measurements, each with its ratio to REFERENCE."""
    speed = [outcome for outcome in outcomes if outcome.workload != "idle"]
    memory = [outcome for outcome in outcomes if outcome.workload == "idle"]
    if speed:
        console.print(_speed_table(speed))
    if memory:
        console.print(_memory_table(memory))
    console.print(LEGEND, style="dim", highlight=False)
    names = (f"{name} ({version})" for name, version in versions.items())
    console.print("Brokers:", ", ".join(names) or "none", style="dim", highlight=False)


def print_comparison(
    console: Console, comparisons: Sequence[Comparison], label: str, threshold: float
) -> None:
    """Print each figure of the working tree beside that of the other tree, which is called `label`."""
    speed = [each for each in comparisons if each.figure not in MEMORY]
    memory = [each for each in comparisons if each.figure in MEMORY]
    console.width = max(console.width, COMPARISON_COLUMNS)
    if speed:
        console.print(_comparison_table("Speed", speed, label))
    if memory:
        console.print(_comparison_table("Resident memory", memory, label))
    for each in comparisons:
        note = each.error or ("the load generator was at its limit" if each.limited else None)
        if note:
            console.print(f"{_row_name(each)}, {each.figure.heading}: {note}", markup=False, highlight=False)
    legend = COMPARISON_LEGEND.format(label=label, threshold=threshold)
    console.print(legend, style="dim", highlight=False)


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """A comparison for the JSON report: the values of each round and the results."""
    ratios = comparison.ratios
    spread, interval = quartiles(ratios), confidence_interval(ratios)
    return {
        "workload": comparison.workload,
        "broker": comparison.broker,
        "figure": comparison.figure.field,
        "working_tree": list(comparison.ours),
        "other": list(comparison.theirs),
        "ratios": ratios,
        "median_ratio": median(ratios) if ratios else None,
        "quartiles": asdict(spread) if spread else None,
        "interval": asdict(interval) if interval else None,
        "verdict": comparison.verdict,
        "error": comparison.error,
    }


def write_json(path: Path, outcomes: Sequence[Outcome], versions: Mapping[str, str], **more: Any) -> None:
    """Write all samples and medians as JSON, in the units of `workloads.Sample`, and `more` unchanged."""
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
        **more,
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
    table = _table("Resident memory", "broker", "idle node, MiB", "×", "KiB per idle client", "×")
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


def _comparison_table(title: str, comparisons: Sequence[Comparison], label: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("workload", "figure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("this tree", label, "×", "per round", "quartiles", "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, members in groupby(comparisons, key=_row_name):
        table.add_section()
        for number, comparison in enumerate(members):
            table.add_row("" if number else name, *_comparison_cells(comparison))
    return table


def _row_name(comparison: Comparison) -> str:
    titles = {workload.name: workload.title for workload in WORKLOADS}
    return titles[comparison.workload] + (", durable" if comparison.broker == ParleyDurable.name else "")


def _comparison_cells(comparison: Comparison) -> list[str]:
    """The row of one figure, without the name of its workload."""
    ratios = comparison.ratios
    ours, theirs = (median(values) if values else None for values in (comparison.ours, comparison.theirs))
    return [
        comparison.figure.heading,
        _number(ours),
        _number(theirs),
        _fine(ours / theirs) if ours and theirs else "–",
        _fine(median(ratios)) if ratios else "–",
        _range(quartiles(ratios)),
        _range(confidence_interval(ratios)),
        comparison.verdict,
    ]


def _range(value: Range | None) -> str:
    return f"{_fine(value.low)}–{_fine(value.high)}" if value else "–"


def _fine(ratio: float) -> str:
    """A ratio as text. Near 1, where it matters, to a tenth of a per cent."""
    return f"{ratio:.3f}" if ratio < 10 else f"{ratio:.1f}"


def _table(title: str, *headings: str) -> Table:
    """A table with names on the left, figures on the right, and a last column for errors."""
    table = Table(title=title, title_justify="left")
    for heading in headings:
        named = heading in ("workload", "broker")
        table.add_column(heading, justify="left" if named else "right", no_wrap=True)
    table.add_column("note")
    return table


def _by_workload(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, Sample, list[Outcome]]]:
    """For each workload, in order: its title, the median of REFERENCE, and the outcomes."""
    titles = {workload.name: workload.title for workload in WORKLOADS}
    for name, members in groupby(outcomes, key=lambda outcome: outcome.workload):
        group = list(members)
        reference = [outcome.median() for outcome in group if outcome.broker == REFERENCE]
        yield titles[name], reference[0] if reference else Sample(), group


def _at_least(sample: Sample) -> str:
    """The mark of a rate that the load generator limited, or ""."""
    return "≥ " if sample.generator_limited else ""


def _number(value: float | None) -> str:
    """A figure as text: three significant digits, or all digits before the point if there are more."""
    if value is None:
        return "–"
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{decimals}f}"


def _ratio(value: float | None, reference: float | None) -> str:
    return _number(value / reference) if value is not None and reference else "–"
