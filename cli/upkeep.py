"""`imctl verify`: is all that is stored as it should be?"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import typer

from cli import output
from cli.context import CONFIG, Config, Json, connect, options
from cli.errors import CommandError

SOUND, UNSOUND, NOT_CHECKED = 0, 1, 2


def verify(context: typer.Context, config: Config = CONFIG, as_json: Json = False) -> None:
    """Check all that is stored: gaps, duplicates, dangling entries, cursors beyond the end of a log.

    A node that runs serves meanwhile. If none runs, its data directory is checked. Exit status: 0 nothing
    found, 1 something found, 2 not checked."""
    try:
        with _progress() as progress:
            findings = _Findings(as_json, progress)
            if _is_running(context):
                with connect(context) as node, closing(node.listen("AdminService/Verify")) as reports:
                    for report in reports:
                        findings.take(report)
            else:
                _verify_files(context, config, findings)
    except CommandError as error:
        raise CommandError(str(error), NOT_CHECKED) from None
    findings.end()
    raise typer.Exit(UNSOUND if findings.found else SOUND)


def _is_running(context: typer.Context) -> bool:
    """Whether to ask a node. One that was killed leaves its node.json."""
    given = options(context)
    if given.server is not None or not given.where.is_dir():
        return True
    from server.data_dir import is_in_use

    return is_in_use(given.where)


def _verify_files(context: typer.Context, config: Path, findings: "_Findings") -> None:
    from broker.config_sources import ConfigError
    from broker.domain.errors import RefusedError, StoreError
    from server import offline
    from server.data_dir import StartError

    try:
        offline.verify(config, options(context).where, findings.take)
    except (ConfigError, StartError, StoreError, RefusedError, OSError) as error:
        raise CommandError(str(error)) from None


class _Findings:
    """Prints findings as they come, and counts them. `progress` shows each report."""

    def __init__(self, as_json: bool, progress: Callable[[Any], None]) -> None:
        self._as_json = as_json
        self._progress = progress
        self._begun = False
        self._checked = 0
        self.found: Counter[str] = Counter()

    def take(self, report: Any) -> None:
        """Print what a report has found."""
        if self._as_json and not self._begun:  # not before it is clear that there is something to print
            output.line('{"findings": [')
        self._begun = True
        self._checked += report.checked
        self._progress(report)
        for each in report.findings:
            if self._as_json:
                document = {"kind": each.kind, "where": each.where, "detail": each.detail}
                comma = "," if self.found else ""
                output.line(comma + output.raw_json(json.dumps(document).encode()))
            else:
                output.line(output.printable(f"{each.kind}: {each.where}: {each.detail}"))
            self.found[each.kind] += 1

    def end(self) -> None:
        """Print the sum."""
        if self._as_json:
            rest = json.dumps({"checked": self._checked, "sound": not self.found})
            output.line(f"], {rest.removeprefix('{')}")
            return
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(self.found.items()))
        sum_ = f"found: {kinds}" if kinds else "nothing wrong"
        output.line(f"{output.count(self._checked, 'row')} checked, {sum_}")


@contextmanager
def _progress() -> Iterator[Callable[[Any], None]]:
    """A progress bar on standard error, if it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("checking {task.description}"),
        BarColumn(),
        TextColumn("{task.fields[checked]} rows"),
        TimeElapsedColumn(),
    )
    # Lines on standard output are put above the bar, but only if they go to the same terminal.
    same = sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=same, transient=True) as bar:
        task = bar.add_task("", total=None, checked=0)
        checked = 0

        def show(report: Any) -> None:
            nonlocal checked
            checked += report.checked
            total = report.total if report.total > 1 else None  # else it is not known how much is left
            bar.update(task, description=report.part, total=total, completed=report.done, checked=checked)

        yield show
