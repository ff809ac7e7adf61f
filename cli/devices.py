"""`imctl presence`, `sessions` and `kick`: who is online, and with which devices."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import output
from cli.context import Behalf, Json, connect
from cli.errors import CommandError
from cli.listing import Filter, Limit, Selection, columns, each, show

if TYPE_CHECKING:
    from bridge.grpc_api import im_admin_pb2 as admin_pb
    from bridge.grpc_api import im_pb2 as pb

_AT_ONCE = 1000


def presence(
    context: typer.Context,
    users: Annotated[list[str], typer.Argument(metavar="USER", help="User ids.", show_default=False)],
    viewer: Behalf = None,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """Show the presence of users: status, devices, last seen. With --as: what that user sees of it."""
    wanted = list(dict.fromkeys(users))
    found = {}
    with connect(context) as node:
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            for shown in node.ask("UserService/GetPresence", viewer, user_ids=some).presences:
                found[shown.user_id] = shown
    for user in wanted:
        if user not in found:
            raise CommandError(f"no user {user}")
    presences = [found[user] for user in wanted]
    show(_PRESENCE, presences, _presence_row, Selection(limit, only, as_json))


_PRESENCE = columns("USER,STATUS,DEVICES,LAST SEEN")


def _presence_row(presence: "pb.Presence") -> tuple[object, ...]:
    seen = output.local_time(presence.last_seen) if presence.last_seen else "never"
    return presence.user_id, presence.status, presence.devices, seen


def sessions(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER", help="Only this user's.", show_default=False)] = "",
    state: Annotated[
        Literal["online", "away"] | None,
        typer.Option(help="Only devices that are connected, or only those that are away."),
    ] = None,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """List the sessions of devices, connected or away. BACKLOG: how many messages wait for one.

    SINCE tells when a device was connected, or when it was seen last. QOS is the highest of its
    subscriptions."""
    with connect(context) as node:
        pages = node.every("AdminService/ListSessions", None, user_id=user or None, state=state)
        show(_SESSIONS, each(pages, "sessions"), _session_row, Selection(limit, only, as_json))


_SESSIONS = columns("USER,CLIENT,STATE,SINCE,QOS,BACKLOG,ADDRESS,NODE")


def _session_row(session: "admin_pb.Session") -> tuple[object, ...]:
    return (
        session.user_id or "(anonymous)",
        session.client_id,
        session.state,
        output.local_time(session.since) if session.since else "-",
        session.qos if session.HasField("qos") else "-",
        session.backlog,
        session.address or "-",
        session.node or "-",
    )


def kick(
    context: typer.Context,
    user: Annotated[str, typer.Argument(metavar="USER", help="A user id.", show_default=False)],
) -> None:
    """End all connections of a user. They may connect again."""
    with connect(context) as node:
        ended = node.ask("AdminService/KickUser", None, user_id=user).connections
    output.line(f"{output.count(ended, 'connection')} of {user} ended")
