"""`imctl contact …`: contacts, contact requests and blocks."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import output
from cli.context import As, Json, connect, group
from cli.listing import Filter, Limit, Selection, columns, each, show

if TYPE_CHECKING:
    from bridge.grpc_api import im_pb2 as pb

app = group("Manage a user's contacts, contact requests and blocks.")

Peer = Annotated[str, typer.Argument(metavar="USER", help="The other user's id.", show_default=False)]
Note = Annotated[str, typer.Option(metavar="TEXT", help="A text for the other user.", show_default=False)]


@app.command("list")
def list_(
    context: typer.Context,
    user: As,
    state: Annotated[
        Literal["contact", "sent", "received", "blocked", "all"],
        typer.Option(help="List contacts, requests sent or received, blocked users, or all of these."),
    ] = "contact",
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """List a user's contacts, requests or blocked users."""
    with connect(context) as node:
        pages = node.every("ContactService/ListContacts", user, state=state)
        show(_COLUMNS, each(pages, "contacts"), _row, Selection(limit, only, as_json))


_COLUMNS = columns("USER,STATE,BLOCKED,REMARK,NAME,NOTE", text="REMARK,NAME,NOTE")


def _row(contact: "pb.Contact") -> tuple[object, ...]:
    return (
        contact.user_id,
        contact.state,
        "yes" if contact.blocked else "no",
        contact.remark,
        contact.name,
        contact.note,
    )


@app.command()
def request(context: typer.Context, peer: Peer, user: As, note: Note = "") -> None:
    """Send a contact request. If the other user has sent one already, this accepts it."""
    with connect(context) as node:
        node.ask("ContactService/RequestContact", user, user_id=peer, note=note)
    output.line(f"contact requested of {peer}")


@app.command()
def accept(context: typer.Context, peer: Peer, user: As) -> None:
    """Accept a contact request."""
    with connect(context) as node:
        node.ask("ContactService/AcceptContact", user, user_id=peer)
    output.line(f"request of {peer} accepted")


@app.command()
def reject(context: typer.Context, peer: Peer, user: As, note: Note = "") -> None:
    """Reject a contact request."""
    with connect(context) as node:
        node.ask("ContactService/RejectContact", user, user_id=peer, note=note)
    output.line(f"request of {peer} rejected")


@app.command()
def remove(context: typer.Context, peer: Peer, user: As) -> None:
    """Remove a contact for both users, or withdraw a request."""
    with connect(context) as node:
        node.ask("ContactService/RemoveContact", user, user_id=peer)
    output.line(f"contact {peer} removed")


@app.command()
def remark(
    context: typer.Context,
    peer: Peer,
    text: Annotated[str, typer.Argument(metavar="TEXT", help='The name; "" removes it.', show_default=False)],
    user: As,
) -> None:
    """Set a user's own name for a contact. Nobody else sees it."""
    with connect(context) as node:
        node.ask("ContactService/RemarkContact", user, user_id=peer, remark=text)
    output.line(f"remark on {peer} set" if text else f"remark on {peer} removed")


@app.command()
def block(context: typer.Context, peer: Peer, user: As) -> None:
    """Block a user: stop messages, presence and receipts in both directions."""
    with connect(context) as node:
        node.ask("ContactService/BlockUser", user, user_id=peer)
    output.line(f"{peer} blocked")


@app.command()
def unblock(context: typer.Context, peer: Peer, user: As) -> None:
    """Remove a block."""
    with connect(context) as node:
        node.ask("ContactService/UnblockUser", user, user_id=peer)
    output.line(f"{peer} unblocked")
