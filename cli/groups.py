"""`imctl group …`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.context import Json, connect

if TYPE_CHECKING:
    from bridge.grpc_api import im_admin_pb2 as pb

app = typer.Typer(help="Groups and their members.", no_args_is_help=True)

Group = Annotated[str, typer.Argument(metavar="GROUP", help="A group id.", show_default=False)]
Users = Annotated[list[str], typer.Argument(metavar="USER...", help="User ids.", show_default=False)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@app.command()
def create(
    context: typer.Context,
    group: Group,
    owner: Annotated[str, typer.Option(metavar="USER", help="Becomes a member.", show_default=False)],
    members: Annotated[
        list[str] | None, typer.Argument(metavar="[USER]...", help="Members from the start.")
    ] = None,
    name: Annotated[str, typer.Option(metavar="TEXT", help="A name to show; else the id.")] = "",
) -> None:
    """Create a group."""
    with connect(context) as node:
        made = node.create_group(group, name, owner, members or [])
    output.line(f"group {group} created with {_count(made.member_count, 'member')}")


@app.command()
def add(context: typer.Context, group: Group, users: Users) -> None:
    """Add members; who is one already stays one."""
    with connect(context) as node:
        changed = node.add_members(group, users)
    output.line(f"{_count(changed, 'member')} added to {group}")


@app.command()
def remove(context: typer.Context, group: Group, users: Users) -> None:
    """Remove members; not the owner."""
    with connect(context) as node:
        changed = node.remove_members(group, users)
    output.line(f"{_count(changed, 'member')} removed from {group}")


@app.command("list")
def list_(context: typer.Context, as_json: Json = False) -> None:
    """List groups."""
    with connect(context) as node:
        groups = node.groups()
    if as_json:
        output.json_array(_as_dict(group) | {"member_count": group.member_count} for group in groups)
        return
    output.table(
        ("GROUP", "NAME", "OWNER", "MEMBERS", "CREATED"),
        (
            (group.group_id, group.name, group.owner, group.member_count, output.local_time(group.created_at))
            for group in groups
        ),
    )


@app.command()
def show(context: typer.Context, group: Group, as_json: Json = False) -> None:
    """Show a group and its members."""
    with connect(context) as node:
        found, members = node.group(group)
    if as_json:
        output.json_value(_as_dict(found) | {"members": list(map(_member_as_dict, members))})
        return
    output.fields(
        (
            ("group", found.group_id),
            ("name", found.name),
            ("owner", found.owner),
            ("members", found.member_count),
            ("created", output.local_time(found.created_at)),
        )
    )
    output.line("")
    output.table(
        ("USER", "ROLE", "JOINED AT SEQ", "MUTED UNTIL"),
        (
            (
                member.user_id,
                member.role,
                member.joined_seq,
                output.local_time(member.muted_until) if member.muted_until else "-",
            )
            for member in members
        ),
    )


def _as_dict(group: "pb.Group") -> dict[str, Any]:
    return {
        "group_id": group.group_id,
        "name": group.name,
        "owner": group.owner,
        "created_at": group.created_at,
    }


def _member_as_dict(member: "pb.Membership") -> dict[str, Any]:
    return {
        "user_id": member.user_id,
        "role": member.role,
        "joined_seq": member.joined_seq,
        "muted_until": member.muted_until,
    }


@app.command()
def dismiss(context: typer.Context, group: Group) -> None:
    """Dissolve a group; its messages stay."""
    with connect(context) as node:
        node.dismiss_group(group)
    output.line(f"group {group} dismissed")
