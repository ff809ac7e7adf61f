"""`imctl presence`, `sessions` and `kick`: who is online, and with which devices."""

from typing import Annotated

import typer

from cli import output
from cli.context import Json, connect
from cli.errors import CommandError

_AT_ONCE = 1000


def presence(
    context: typer.Context,
    users: Annotated[list[str], typer.Argument(metavar="USER...", help="User ids.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Show the presence of users: status, devices, last seen."""
    wanted = list(dict.fromkeys(users))
    found = {}
    with connect(context) as node:
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            for each in node.ask("UserService/GetPresence", None, user_ids=some).presences:
                found[each.user_id] = each
    for user in wanted:
        if user not in found:
            raise CommandError(f"no user {user}")
    presences = [found[user] for user in wanted]
    if as_json:
        from cli.documents import encoded

        output.json_array(map(encoded, presences))
        return
    output.table(
        ("USER", "STATUS", "DEVICES", "LAST SEEN"),
        (
            (
                each.user_id,
                each.status,
                each.devices,
                output.local_time(each.last_seen) if each.last_seen else "never",
            )
            for each in presences
        ),
    )


def sessions(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="[USER]", help="Only this user's.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """List the connected devices."""
    with connect(context) as node:
        pages = node.every("AdminService/ListSessions", None, user_id=user or None)
        found = [session for page in pages for session in page.sessions]
    if as_json:
        from cli.documents import encoded

        output.json_array(map(encoded, found))
        return
    output.table(
        ("USER", "CLIENT", "ADDRESS"),
        ((each.user_id or "(anonymous)", each.client_id, each.address) for each in found),
    )


def kick(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER", help="A user id.", show_default=False)],
) -> None:
    """End all connections of a user. They may connect again."""
    with connect(context) as node:
        ended = node.ask("AdminService/KickUser", None, user_id=user).connections
    output.line(f"{output.count(ended, 'connection')} of {user} ended")
