"""`imctl conversations` and `imctl conversation …`: conversations as a user sees them."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli import output, parsing
from cli.context import As, Json, connect, group
from cli.listing import Filter, Limit, Selection, columns, each, show
from cli.messages import Conversation

if TYPE_CHECKING:
    from bridge.grpc_api import im_pb2 as pb

app = group("Change a user's marks on a conversation.")


def conversations(
    context: typer.Context,
    user: As,
    since: Annotated[
        int,
        typer.Option(
            min=0, max=2**53 - 1, metavar="MS", help="Only those changed after this time (Unix ms)."
        ),
    ] = 0,
    hidden: Annotated[bool, typer.Option("--hidden", help="Include hidden ones.")] = False,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """List a user's conversations, the most recently active first."""
    with connect(context) as node:
        pages = node.every("ConversationService/ListConversations", user, since=since, include_hidden=hidden)
        show(_COLUMNS, each(pages, "conversations"), _row, Selection(limit, only, as_json))


_COLUMNS = columns("NAME,CONVERSATION,UNREAD,READ,LAST,ACTIVE,MARKS", text="NAME,MARKS")


def _row(conversation: "pb.Conversation") -> tuple[object, ...]:
    marks = [mark for mark in (_marks(conversation), _mentioned(conversation)) if mark]
    return (
        _name(conversation),
        conversation.conversation_id,
        conversation.unread,
        conversation.read_seq,
        conversation.head_seq,
        output.local_time(conversation.active_at) if conversation.active_at else "-",
        ", ".join(marks) or "-",
    )


def _name(conversation: "pb.Conversation") -> str:
    """The name of the group or the other user, as the user has it."""
    if conversation.HasField("group"):
        return conversation.group.name or conversation.group.group_id
    peer = conversation.peer
    return peer.remark or peer.name or peer.user_id


def _mentioned(conversation: "pb.Conversation") -> str:
    return "mentioned" if conversation.HasField("mentioned_seq") else ""


def _marks(conversation: "pb.Conversation") -> str:
    marks = {
        "pinned": conversation.pinned,
        "muted": conversation.muted,
        "hidden": conversation.hidden,
        "unread": conversation.marked_unread,
    }
    return ", ".join(name for name, is_so in marks.items() if is_so)


@app.command("set")
def set_(
    context: typer.Context,
    conversation: Conversation,
    user: As,
    pinned: Annotated[bool | None, typer.Option("--pin/--unpin", help="Pin it to the top.")] = None,
    muted: Annotated[bool | None, typer.Option("--mute/--unmute", help="Want no notifications.")] = None,
    hidden: Annotated[bool | None, typer.Option("--hide/--show", help="Hide until the next message.")] = None,
    unread: Annotated[bool | None, typer.Option("--unread/--read", help="Mark it as unread.")] = None,
) -> None:
    """Change a user's marks on a conversation. Marks that are not given stay as they are."""
    if all(value is None for value in (pinned, muted, hidden, unread)):
        raise typer.BadParameter("give at least one mark to set")
    with connect(context) as node:
        found = node.ask(
            "ConversationService/SetConversation",
            user,
            conversation_id=parsing.conversation(conversation),
            pinned=pinned,
            muted=muted,
            hidden=hidden,
            marked_unread=unread,
        )
    output.line(f"{found.conversation_id} of {user}: {_marks(found) or 'no marks'}")
