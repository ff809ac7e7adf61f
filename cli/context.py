"""What all commands share: common options, groups of commands, and the connection to the node."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cli.location import Options, locate

if TYPE_CHECKING:
    from cli.client import NodeClient  # gRPC: only once there is a node to call

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
As = Annotated[str, typer.Option("--as", metavar="USER", help="The user to act as.", show_default=False)]
Config = Annotated[Path, typer.Option(metavar="FILE", help="The configuration of a node that does not run.")]
CONFIG = Path("config/broker.yaml")
Behalf = Annotated[
    str | None,
    typer.Option("--as", metavar="USER", help="The user to act as. Default: the system.", show_default=False),
]


class CommandGroup(TyperGroup):
    """A group of commands whose help lists what each of them does in full, whatever the width."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """See click. Any: typer's copy of click is private."""
        every = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(_WHOLE)) for name, command in every if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


_WHOLE = 1000
"""Characters: more than any command's first sentence."""


def group(help: str, **settings: Any) -> typer.Typer:
    """A group of commands. Its help is plain text: typer's tables cut names to fit narrow terminals."""
    return typer.Typer(cls=CommandGroup, help=help, no_args_is_help=True, rich_markup_mode=None, **settings)


def confirmed(question: str, yes: bool) -> None:
    """Ask before something that cannot be undone, unless `yes`.

    Raises:
        typer.BadParameter: there is no terminal to ask on.
        typer.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"give --yes: there is no terminal to ask on ({question})")
    with interruptible():
        typer.confirm(question, abort=True, err=True)


@contextmanager
def interruptible() -> Iterator[None]:
    """Around a question. click takes Ctrl-C for the answer no; here it ends the command, as elsewhere."""
    try:
        yield
    except typer.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):
            print(file=sys.stderr)  # the question has no end of line yet
            raise KeyboardInterrupt from None
        raise


def options(context: typer.Context) -> Options:
    """The options before the command."""
    given: Options = context.obj
    return given


def connect(context: typer.Context) -> "NodeClient":
    """A client for the node that the options name.

    Raises:
        CommandError: no node is running there, or its files cannot be read.
    """
    given = options(context)
    location = locate(given)
    from cli.client import NodeClient  # gRPC: only once there is a node to call

    return NodeClient(location, given.timeout)
