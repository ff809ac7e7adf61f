"""`imctl serve` and `imctl stats`: the node itself."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.context import Json, connect, options
from cli.listing import Filter, Limit, Selection, columns, selected


def serve(
    context: typer.Context,
    config: Annotated[Path, typer.Option(metavar="FILE", help="The configuration file.")] = Path(
        "config/broker.yaml"
    ),
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The data directory. Default: storage.data_dir.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a configuration key; repeatable."),
    ] = None,
    accept_new_store: Annotated[
        bool,
        typer.Option(
            "--accept-new-store",
            help="Start even if the stores are not the ones that the data directory was used with.",
        ),
    ] = False,
) -> None:
    """Run a node until it gets SIGINT (Ctrl-C) or SIGTERM. SIGHUP reloads its configuration."""
    named = os.environ.get("IM_DATA_DIR")  # the node itself reads all other IM_ variables
    folder = data_dir or options(context).data_dir or (Path(named) if named else None)
    from server.app import serve as run  # imports the whole broker, which only this command needs

    raise typer.Exit(run(config, folder, settings or [], accept_new_store=accept_new_store))


def stats(
    context: typer.Context,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """Print the node's counters and gauges."""
    with connect(context) as node:
        values = dict(sorted(node.ask("AdminService/Stats", None).values.items()))
    found = selected(_STATS, values.items(), tuple, Selection(limit, only, as_json))
    if as_json:
        output.json_value(dict(found))
        return
    output.table(_STATS.header, found)


_STATS = columns("NAME,VALUE")
