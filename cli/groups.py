"""`imctl group …`: groups and their settings. For their members see `cli.members`."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import output
from cli.context import Behalf, Json, Yes, confirmed, connect, group
from cli.listing import Filter, Limit, Selection, columns, each, selected, show
from cli.parsing import duration, need_a_setting, until

if TYPE_CHECKING:
    from bridge.grpc_api import im_admin_pb2 as admin_pb
    from bridge.grpc_api import im_pb2 as pb

app = group("Manage groups and their members.")

Group = Annotated[str, typer.Argument(metavar="GROUP", help="A group id.", show_default=False)]
Member = Annotated[str, typer.Argument(metavar="USER", help="A user id.", show_default=False)]
For = Annotated[
    int | None,
    typer.Option("--for", parser=duration, metavar="DURATION", help="E.g. 30m, 12h, 7d. Default: for ever."),
]
Avatar = Annotated[str | None, typer.Option(metavar="URL", help="A picture.")]
Announcement = Annotated[str | None, typer.Option(metavar="TEXT", help="A text shown to members.")]
Invite = Annotated[Literal["members", "admins"] | None, typer.Option(help="Who may add users.")]
Post = Annotated[Literal["members", "admins"] | None, typer.Option(help="Who may send messages.")]
Join = Annotated[
    Literal["open", "approval", "closed"] | None,
    typer.Option(help="How users join: at once (open), if an admin accepts (approval), or not at all."),
]
HistoryVisible = Annotated[
    bool | None,
    typer.Option(
        "--history-visible/--no-history-visible", help="Whether new members can read earlier messages."
    ),
]


@app.command()
def create(
    context: typer.Context,
    group: Group,
    owner: Annotated[
        str,
        typer.Option(
            "--as", "--owner", metavar="USER", help="Whom to act as: the owner.", show_default=False
        ),
    ],
    members: Annotated[
        list[str] | None, typer.Argument(metavar="USER", help="The first members besides the owner.")
    ] = None,
    name: Annotated[str, typer.Option(metavar="TEXT", help="The name to show. Default: the id.")] = "",
    avatar: Avatar = None,
    announcement: Announcement = None,
    who_may_invite: Invite = None,
    who_may_post: Post = None,
    join: Join = None,
    history_visible: HistoryVisible = None,
) -> None:
    """Create a group."""
    with connect(context) as node:
        made = node.ask(
            "GroupService/CreateGroup",
            owner,
            group_id=group,
            name=name,
            members=members,
            avatar=avatar,
            announcement=announcement,
            who_may_invite=who_may_invite,
            who_may_post=who_may_post,
            join=join,
            history_visible=history_visible,
        )
    output.line(f"group {group} created with {output.count(made.members, 'member')}")


@app.command("list")
def list_(
    context: typer.Context,
    user: Behalf = None,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """List all groups, dismissed ones included; with --as, the user's groups."""
    method = "AdminService/ListGroups" if user is None else "GroupService/ListGroups"
    with connect(context) as node:
        groups = each(node.every(method, user), "groups")
        show(_COLUMNS, groups, _row, Selection(limit, only, as_json))


_COLUMNS = columns("GROUP,NAME,OWNER,MEMBERS,STATE,CREATED", text="NAME")


def _row(group: "admin_pb.Group | pb.GroupInfo") -> tuple[object, ...]:
    return (
        group.group_id,
        group.name,
        group.owner,
        group.members if hasattr(group, "members") else group.member_count,
        "dismissed" if group.dismissed_at else "active",
        output.local_time(group.created_at),
    )


@app.command("show")
def show_(
    context: typer.Context,
    group: Group,
    user: Behalf = None,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """Show a group and its members."""
    with connect(context) as node:
        found = node.ask("GroupService/GetGroup", user, group_id=group)
        pages = node.every("GroupService/ListMembers", user, group_id=group)
        selection = Selection(limit, only, as_json)
        members = selected(_MEMBERS, each(pages, "members"), _member_row, selection)
    if as_json:
        from cli.documents import plain

        values = plain(found)
        if user is None:
            del values["role"]  # the role of the caller: the system is not a member
        values |= {"member_count": found.members, "members": list(map(plain, members))}
        output.json_value(values)
        return
    output.fields(_fields(found))
    output.line("")
    output.table(_MEMBERS.header, map(_member_row, members))


_MEMBERS = columns("USER,ROLE,JOINED AT SEQ,MUTED")


def _member_row(member: "pb.Member") -> tuple[object, ...]:
    return member.user_id, member.role, member.joined_seq, _or_dash(member.muted_until)


def _fields(group: "pb.GroupInfo") -> tuple[tuple[str, Any], ...]:
    return (
        ("group", group.group_id),
        ("name", group.name),
        ("owner", group.owner),
        ("members", group.members),
        ("created", output.local_time(group.created_at)),
        ("state", f"dismissed {output.local_time(group.dismissed_at)}" if group.dismissed_at else "active"),
        ("avatar", group.avatar or "-"),
        ("announcement", group.announcement or "-"),
        ("who may invite", group.who_may_invite),
        ("who may post", group.who_may_post),
        ("join", group.join),
        ("history", "visible to new members" if group.history_visible else "hidden from new members"),
        ("muted", _or_dash(group.muted_until)),
    )


def _or_dash(muted_until: int) -> str:
    return output.until(muted_until) if muted_until else "-"


@app.command()
def update(
    context: typer.Context,
    group: Group,
    user: Behalf = None,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The name to show.")] = None,
    avatar: Avatar = None,
    announcement: Announcement = None,
    who_may_invite: Invite = None,
    who_may_post: Post = None,
    join: Join = None,
    history_visible: HistoryVisible = None,
) -> None:
    """Change a group's name and settings.

    Settings that are not given stay as they are."""
    settings = {
        "name": name,
        "avatar": avatar,
        "announcement": announcement,
        "who_may_invite": who_may_invite,
        "who_may_post": who_may_post,
        "join": join,
        "history_visible": history_visible,
    }
    need_a_setting(settings)
    with connect(context) as node:
        node.ask("GroupService/UpdateGroup", user, group_id=group, **settings)
    output.line(f"group {group} updated")


@app.command()
def transfer(context: typer.Context, group: Group, member: Member, user: Behalf = None) -> None:
    """Make another member the owner. The previous owner becomes an admin."""
    with connect(context) as node:
        node.ask("GroupService/TransferGroup", user, group_id=group, user_id=member)
    output.line(f"group {group} belongs to {member}")


@app.command()
def role(
    context: typer.Context,
    group: Group,
    member: Member,
    becomes: Annotated[
        Literal["admin", "member"],
        typer.Argument(metavar="admin|member", help="The new role.", show_default=False),
    ],
    user: Behalf = None,
) -> None:
    """Make a member an admin, or an admin an ordinary member."""
    with connect(context) as node:
        node.ask("GroupService/SetRole", user, group_id=group, user_id=member, role=becomes)
    output.line(f"{member} is {'an' if becomes == 'admin' else 'a'} {becomes} of {group}")


_Whom = Annotated[str | None, typer.Argument(metavar="USER", help="A member. Default: the whole group.")]


@app.command()
def mute(
    context: typer.Context, group: Group, member: _Whom = None, time: For = None, user: Behalf = None
) -> None:
    """Mute a member, or all members except the owner and admins: they may not post."""
    end = until(time)
    with connect(context) as node:
        node.ask("GroupService/Mute", user, group_id=group, user_id=member, until=end)
    output.line(f"{_muted(group, member)} muted {output.until(end)}")


@app.command()
def unmute(context: typer.Context, group: Group, member: _Whom = None, user: Behalf = None) -> None:
    """Remove a mute of a member, or of the whole group."""
    with connect(context) as node:
        node.ask("GroupService/Mute", user, group_id=group, user_id=member, until=0)
    output.line(f"{_muted(group, member)} unmuted")


def _muted(group: str, member: str | None) -> str:
    return f"group {group}" if member is None else f"{member} in {group}"


@app.command()
def dismiss(context: typer.Context, group: Group, user: Behalf = None, yes: Yes = False) -> None:
    """Dismiss a group: nobody can post any more, its members can still read it. Asks first."""
    confirmed(f"Dismiss group {group} for ever?", yes)
    with connect(context) as node:
        node.ask("GroupService/DismissGroup", user, group_id=group)
    output.line(f"group {group} dismissed")
