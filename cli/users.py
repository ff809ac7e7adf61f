"""`imctl user …`, `imctl token` and `imctl revoke`: accounts and their tokens."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli import listing, output
from cli.context import Behalf, Json, Yes, confirmed, connect, group, interruptible
from cli.errors import CommandError
from cli.listing import Filter, Limit, Selection, columns, each
from cli.parsing import duration, need_a_setting

if TYPE_CHECKING:
    from bridge.grpc_api import im_admin_pb2 as pb

app = group("Manage accounts and profiles.")

User = Annotated[str, typer.Argument(metavar="USER", help="A user id.", show_default=False)]
Password = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="The password. Others on this host can see it in the process list."),
]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, one line.")
]


def _read_password(password: str | None, from_stdin: bool) -> str:
    """The password from the option or from standard input, else from two prompts on the terminal."""
    if password is not None and from_stdin:
        raise typer.BadParameter("--password and --password-stdin exclude each other")
    if password is not None:
        return password
    if from_stdin:
        try:
            return sys.stdin.readline().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise typer.BadParameter("the password on standard input is not valid UTF-8") from None
    if not sys.stdin.isatty():
        raise typer.BadParameter("give --password or --password-stdin: there is no terminal to ask on")
    with interruptible():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


@app.command()
def add(
    context: typer.Context,
    user: User,
    password: Password = None,
    password_stdin: FromStdin = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Set no password: the user can connect with tokens only.")
    ] = False,
    role: Annotated[
        Literal["user", "admin", "service"],
        typer.Option(help="An admin may subscribe to all topics; a service may act for users over gRPC."),
    ] = "user",
    reuse_id: Annotated[
        bool, typer.Option("--reuse-id", help="Give the id also if a removed account had it.")
    ] = False,
) -> None:
    """Add an account. Asks for the password unless it is given."""
    if no_password and (password is not None or password_stdin):
        raise typer.BadParameter("--no-password excludes a password")
    chosen = None if no_password else _read_password(password, password_stdin)
    with connect(context) as node:
        node.ask("AdminService/AddUser", None, user_id=user, password=chosen, role=role, reuse_id=reuse_id)
    output.line(f"user {user} added")


@app.command()
def passwd(
    context: typer.Context, user: User, password: Password = None, password_stdin: FromStdin = False
) -> None:
    """Set a user's password. Asks for it unless it is given. Revokes the user's tokens."""
    chosen = _read_password(password, password_stdin)
    with connect(context) as node:
        node.ask("AdminService/SetPassword", None, user_id=user, password=chosen)
    output.line(f"password of {user} set")


@app.command("list")
def list_(
    context: typer.Context,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """List all accounts."""
    with connect(context) as node:
        users = each(node.every("AdminService/ListUsers", None), "users")
        listing.show(_COLUMNS, users, _row, Selection(limit, only, as_json), _as_dict)


_COLUMNS = columns("USER,ROLE,STATE,PASSWORD,CREATED")


def _row(user: "pb.User") -> tuple[object, ...]:
    return (
        user.user_id,
        user.role,
        "disabled" if user.disabled else "active",
        "set" if user.has_password else "none",
        output.local_time(user.created_at),
    )


@app.command()
def show(context: typer.Context, user: User, as_json: Json = False) -> None:
    """Show an account and its groups."""
    with connect(context) as node:
        found = node.ask("AdminService/GetUser", None, user_id=user)
    if as_json:
        groups = [
            {"group_id": membership.group_id, "role": membership.role, "joined_seq": membership.joined_seq}
            for membership in found.groups
        ]
        output.json_value(_as_dict(found.user) | {"groups": groups})
        return
    output.fields(
        (
            ("user", found.user.user_id),
            ("role", found.user.role),
            ("state", "disabled" if found.user.disabled else "active"),
            ("password", "set" if found.user.has_password else "none"),
            ("created", output.local_time(found.user.created_at)),
            ("groups", ", ".join(membership.group_id for membership in found.groups) or "none"),
        )
    )


def _as_dict(user: "pb.User") -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "role": user.role,
        "disabled": user.disabled,
        "has_password": user.has_password,
        "created_at": user.created_at,
    }


@app.command()
def profile(context: typer.Context, user: User, viewer: Behalf = None, as_json: Json = False) -> None:
    """Show a user's profile and privacy settings. With --as: what that user sees of them."""
    with connect(context) as node:
        found = node.ask("UserService/GetUsers", viewer, user_ids=[user]).users
    if not found:
        raise CommandError(f"no user {user}")
    if as_json:
        from cli.documents import encoded

        output.json_value(encoded(found[0]))
        return
    privacy = found[0].privacy
    output.fields(
        (
            ("user", found[0].user_id),
            ("name", found[0].name or "-"),
            ("avatar", found[0].avatar or "-"),
            ("who may message", privacy.who_may_message),
            ("who may add to groups", privacy.who_may_add_me),
            ("who sees presence", privacy.who_sees_presence),
            ("read receipts", "on" if privacy.read_receipts else "off"),
        )
    )


@app.command()
def update(
    context: typer.Context,
    user: User,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The name to show.")] = None,
    avatar: Annotated[str | None, typer.Option(metavar="URL", help="A picture.")] = None,
    who_may_message: Annotated[
        Literal["everyone", "contacts"] | None, typer.Option(help="Who may send the user messages.")
    ] = None,
    who_may_add_me: Annotated[
        Literal["everyone", "contacts", "nobody"] | None,
        typer.Option(help="Who may add the user to groups."),
    ] = None,
    who_sees_presence: Annotated[
        Literal["everyone", "contacts", "nobody"] | None, typer.Option(help="Who may see their presence.")
    ] = None,
    read_receipts: Annotated[
        bool | None,
        typer.Option("--read-receipts/--no-read-receipts", help="Whether others learn what they have read."),
    ] = None,
) -> None:
    """Change a user's profile and privacy settings.

    Settings that are not given stay as they are."""
    values = {
        "name": name,
        "avatar": avatar,
        "who_may_message": who_may_message,
        "who_may_add_me": who_may_add_me,
        "who_sees_presence": who_sees_presence,
        "read_receipts": read_receipts,
    }
    need_a_setting(values)
    with connect(context) as node:
        node.ask("UserService/UpdateUser", user, **values)
    output.line(f"profile of {user} updated")


@app.command()
def disable(context: typer.Context, user: User) -> None:
    """Disable an account: it cannot connect; its data is kept."""
    with connect(context) as node:
        node.ask("AdminService/SetUserDisabled", None, user_id=user, disabled=True)
    output.line(f"user {user} disabled")


@app.command()
def enable(context: typer.Context, user: User) -> None:
    """Enable an account again."""
    with connect(context) as node:
        node.ask("AdminService/SetUserDisabled", None, user_id=user, disabled=False)
    output.line(f"user {user} enabled")


@app.command()
def remove(context: typer.Context, user: User, yes: Yes = False) -> None:
    """Remove an account, its contacts and memberships. Its messages stay. Asks first.

    Refused while the user owns a group."""
    confirmed(f"Remove user {user} for ever, with contacts and memberships?", yes)
    with connect(context) as node:
        node.ask("AdminService/RemoveUser", None, user_id=user)
    output.line(f"user {user} removed")


def token(
    context: typer.Context,
    user: User,
    ttl: Annotated[
        int,
        typer.Option(parser=duration, metavar="DURATION", help="Lifetime: seconds, or e.g. 30m, 12h, 7d."),
    ] = 43200,
) -> None:
    """Print an access token: until it expires, it can be used as the user's password."""
    with connect(context) as node:
        output.line(node.ask("AdminService/IssueToken", None, user_id=user, ttl_seconds=ttl).token)


def revoke(context: typer.Context, user: User) -> None:
    """Revoke all tokens of a user. The password stays valid."""
    with connect(context) as node:
        node.ask("AdminService/RevokeTokens", None, user_id=user)
    output.line(f"tokens of {user} revoked")
