"""What all commands share: common options, and the connection to the node."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.location import Options, locate

if TYPE_CHECKING:
    from cli.client import NodeClient  # gRPC: only once there is a node to call

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
As = Annotated[str, typer.Option("--as", metavar="USER", help="The user to act as.", show_default=False)]
Behalf = Annotated[
    str | None,
    typer.Option("--as", metavar="USER", help="The user to act as. Default: the system.", show_default=False),
]


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
