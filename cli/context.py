"""What all commands share: the options before the command, and the way to the node."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.location import Options, locate

if TYPE_CHECKING:
    from cli.client import NodeClient  # gRPC: only once there is a node to call

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
As = Annotated[str, typer.Option("--as", metavar="USER", help="The user who does it.", show_default=False)]
Behalf = Annotated[
    str | None,
    typer.Option("--as", metavar="USER", help="The user who does it; else the system.", show_default=False),
]


def options(context: typer.Context) -> Options:
    """The options that stand before the command."""
    given: Options = context.obj
    return given


def connect(context: typer.Context) -> "NodeClient":
    """A client for the node the options lead to.

    Raises:
        CommandError: there is no node.
    """
    given = options(context)
    location = locate(given)
    from cli.client import NodeClient  # gRPC: only once there is a node to call

    return NodeClient(location, given.timeout)
