"""Registers the commands of imctl and the options before the command."""

from pathlib import Path
from typing import Annotated

import typer

from broker import VERSION
from cli import (
    backups,
    contacts,
    conversations,
    devices,
    groups,
    members,
    messages,
    node,
    output,
    upkeep,
    users,
)
from cli.context import group
from cli.location import Options

HELP = """Run and administer a node.

Whom a command acts as: the system, which may do everything. With --as USER it acts as that user: with
their rights, in their name, and with what they may see. Commands about a user's own things (contact,
conversations, conversation, read, edit, group create, join and leave) need --as.

Listings have --limit and --filter, and --json for programs. On a terminal, a listing longer than the
screen goes to the pager (PAGER, or less; PAGER=cat: none).

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted;
verify has its own."""

app = group(HELP, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


def _version(wanted: bool) -> None:
    if wanted:
        output.line(f"imctl {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The node's data directory. Default: IM_DATA_DIR, IM_STORAGE__DATA_DIR or ./data.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The gRPC address of a node on another host."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with the admin token. Default: admin.token in DIR."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait for the node's answer.")
    ] = 10,
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep the options before the command for the command."""
    context.obj = Options(data_dir, server, token_file, timeout)


app.command()(node.serve)
app.add_typer(users.app, name="user")
app.command()(users.token)
app.command()(users.revoke)
app.command()(devices.presence)
app.command()(devices.sessions)
app.command()(devices.kick)
app.add_typer(contacts.app, name="contact")
groups.app.add_typer(members.app)
app.add_typer(groups.app, name="group")
app.command()(messages.send)
app.command()(messages.edit)
app.command()(messages.recall)
app.command()(messages.read)
app.command()(messages.readers)
app.command()(conversations.conversations)
app.add_typer(conversations.app, name="conversation")
app.command()(messages.tail)
app.command()(messages.history)
app.command()(node.stats)
app.command()(upkeep.verify)
app.command()(backups.backup)
app.command()(backups.restore)
