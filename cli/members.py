"""`imctl group …`: members, join requests and bans."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.context import As, Behalf, Json, connect
from cli.groups import For, Group, Member
from cli.listing import Filter, Limit, Selection, columns, each, show
from cli.parsing import FOR_EVER, until

if TYPE_CHECKING:
    from bridge.grpc_api import im_pb2 as pb

app = typer.Typer()

Users = Annotated[list[str], typer.Argument(metavar="USER", help="User ids.", show_default=False)]

_AT_ONCE = 10_000


def _change(context: typer.Context, method: str, group: str, users: list[str], user: str | None) -> int:
    """Add or remove members, in batches of `_AT_ONCE`. Returns how many were added or removed."""
    changed = 0
    with connect(context) as node:
        for start in range(0, len(users), _AT_ONCE):
            some = users[start : start + _AT_ONCE]
            changed += len(node.ask(method, user, group_id=group, user_ids=some).user_ids)
    return changed


@app.command()
def add(context: typer.Context, group: Group, users: Users, user: Behalf = None) -> None:
    """Add members. Users who are members already are left as they are."""
    changed = _change(context, "GroupService/AddMembers", group, users, user)
    output.line(f"{output.count(changed, 'member')} added to {group}")


@app.command()
def remove(context: typer.Context, group: Group, users: Users, user: Behalf = None) -> None:
    """Remove members. The owner cannot be removed."""
    changed = _change(context, "GroupService/RemoveMembers", group, users, user)
    output.line(f"{output.count(changed, 'member')} removed from {group}")


@app.command()
def join(
    context: typer.Context,
    group: Group,
    user: As,
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="A text for the admins.", show_default=False)
    ] = "",
) -> None:
    """Join an open group, or send a join request to the admins of another."""
    with connect(context) as node:
        status = node.ask("GroupService/JoinGroup", user, group_id=group, note=note).status
    output.line(f"{user} joined {group}" if status == "joined" else f"{user} has asked to join {group}")


@app.command()
def leave(context: typer.Context, group: Group, user: As) -> None:
    """Leave a group. The owner cannot leave."""
    with connect(context) as node:
        node.ask("GroupService/LeaveGroup", user, group_id=group)
    output.line(f"{user} left {group}")


@app.command()
def requests(
    context: typer.Context,
    group: Group,
    user: Behalf = None,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """List join requests."""
    with connect(context) as node:
        found = each(node.every("GroupService/ListJoinRequests", user, group_id=group), "requests")
        show(_REQUESTS, found, _request_row, Selection(limit, only, as_json))


_REQUESTS = columns("USER,ASKED,NOTE", text="NOTE")


def _request_row(request: "pb.PendingRequest") -> tuple[object, ...]:
    return request.user_id, output.local_time(request.created_at), request.note


@app.command()
def accept(context: typer.Context, group: Group, member: Member, user: Behalf = None) -> None:
    """Accept a join request."""
    with connect(context) as node:
        node.ask("GroupService/AcceptJoinRequest", user, group_id=group, user_id=member)
    output.line(f"{member} accepted in {group}")


@app.command()
def reject(context: typer.Context, group: Group, member: Member, user: Behalf = None) -> None:
    """Reject a join request."""
    with connect(context) as node:
        node.ask("GroupService/RejectJoinRequest", user, group_id=group, user_id=member)
    output.line(f"{member} rejected by {group}")


@app.command()
def ban(context: typer.Context, group: Group, member: Member, time: For = None, user: Behalf = None) -> None:
    """Ban a user: remove them from the group, and keep them from coming back."""
    end = 0 if time is None else until(time)
    with connect(context) as node:
        node.ask("GroupService/BanMember", user, group_id=group, user_id=member, until=end)
    output.line(f"{member} banned from {group} {_until(end)}")


@app.command()
def unban(context: typer.Context, group: Group, member: Member, user: Behalf = None) -> None:
    """Remove a ban."""
    with connect(context) as node:
        node.ask("GroupService/UnbanMember", user, group_id=group, user_id=member)
    output.line(f"{member} may come back to {group}")


@app.command()
def bans(
    context: typer.Context,
    group: Group,
    user: Behalf = None,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """List bans."""
    with connect(context) as node:
        found = each(node.every("GroupService/ListBans", user, group_id=group), "bans")
        show(_BANS, found, _ban_row, Selection(limit, only, as_json))


_BANS = columns("USER,BANNED")


def _ban_row(ban: "pb.Ban") -> tuple[object, ...]:
    return ban.user_id, _until(ban.until)


def _until(end: int) -> str:
    return output.until(end or FOR_EVER)
