"""`imctl send`, `edit`, `recall`, `read`, `readers`, `tail` and `history`."""

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output, parsing
from cli.context import As, Behalf, Json, connect
from cli.errors import CommandError
from cli.listing import Filter, Limit, Selection, columns, each, selected, show

if TYPE_CHECKING:
    from bridge.grpc_api import im_pb2 as pb
    from cli.client import NodeClient

To = Annotated[
    str,
    typer.Argument(
        metavar="TO", help="A user id, g:GROUP, groups/GROUP or users/USER/inbox.", show_default=False
    ),
]
Conversation = Annotated[
    str, typer.Argument(metavar="CONVERSATION", help="p:USER:USER or g:GROUP.", show_default=False)
]
MessageId = Annotated[str, typer.Argument(metavar="MESSAGE_ID", help="A message id.", show_default=False)]

MAX_SEQ = 2**32 - 1

_AT_ONCE = 100


def send(
    context: typer.Context,
    to: To,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="The text, or a JSON object.", show_default=False)
    ],
    sender: Behalf = None,
    reply_to: Annotated[
        str | None, typer.Option(metavar="MESSAGE_ID", help="The message it answers.", show_default=False)
    ] = None,
    mention: Annotated[
        list[str] | None,
        typer.Option(metavar="USER", help='A user to mention; repeatable. "all": the whole group.'),
    ] = None,
    client_msg_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Idempotency key: a message sent twice with it is stored once."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a message.

    A JSON object with a "content" key gives all fields of the message. Anything else is its text."""
    fields = _message(text) | parsing.recipient(to)
    given = {"reply_to": reply_to, "mentions": _mentions(mention), "client_msg_id": client_msg_id}
    fields |= {name: value for name, value in given.items() if value is not None}
    with connect(context) as node:
        sent = node.ask("MessageService/SendMessage", sender, **fields)
    if as_json:
        from cli.documents import encoded

        output.json_value(encoded(sent))
        return
    output.line(f"sent {sent.id} to {sent.conversation_id} as seq {sent.seq}")


def _message(text: str) -> dict[str, Any]:
    """The fields of the message that publishing `text` would send."""
    import msgspec

    from broker.domain.errors import Refusal
    from broker.domain.message import NO_DATA, parse_payload

    content = parse_payload(os.fsencode(text))
    if isinstance(content, Refusal):
        raise CommandError(content.detail)
    fields = msgspec.structs.asdict(content) | {"content": bytes(content.content)}
    fields["data"] = None if content.data == NO_DATA else bytes(content.data)
    if content.mentions is not None:
        fields["mentions"] = msgspec.json.encode(content.mentions)
    return {name: value for name, value in fields.items() if value is not None}


def _mentions(users: list[str] | None) -> bytes | None:
    if not users:
        return None
    import msgspec

    if "all" not in users:
        parsing.need_ids({"user_ids": users})
        return msgspec.json.encode(users)
    if len(users) > 1:
        raise typer.BadParameter("--mention all excludes other mentions")
    return b'"all"'


def edit(
    context: typer.Context,
    message: MessageId,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="The new content, as for send.", show_default=False)
    ],
    user: As,
) -> None:
    """Replace the content of a user's message, for a limited time after it was sent."""
    fields = _message(text)
    if others := fields.keys() - {"content", "type"}:
        raise CommandError(f"an edit changes the content only: remove {', '.join(sorted(others))}")
    with connect(context) as node:
        node.ask("MessageService/EditMessage", user, id=message, content=fields["content"])
    output.line(f"message {message} edited")


def recall(context: typer.Context, message: MessageId, user: Behalf = None) -> None:
    """Recall a message: delete its content.

    The sender may do so for a limited time, admins of a group and the system at any time."""
    with connect(context) as node:
        node.ask("MessageService/RecallMessage", user, id=message)
    output.line(f"message {message} recalled")


def read(
    context: typer.Context,
    conversation: Conversation,
    user: As,
    seq: Annotated[
        int | None,
        typer.Argument(metavar="SEQ", min=1, max=MAX_SEQ, help="Up to this seq. Default: all."),
    ] = None,
) -> None:
    """Mark a conversation as read by a user."""
    where = parsing.conversation(conversation)
    with connect(context) as node:
        if seq is None:
            import msgspec

            last = node.ask("MessageService/GetMessages", user, conversation_id=where, limit=1).messages
            if not last:
                raise CommandError(f"{where} has no messages")
            seq = msgspec.json.decode(last[0])["seq"]
        node.ask("MessageService/MarkRead", user, conversation_id=where, seq=seq)
    output.line(f"{where} read by {user} up to seq {seq}")


def readers(
    context: typer.Context,
    message: MessageId,
    user: Behalf = None,
    limit: Limit = None,
    only: Filter = None,
    as_json: Json = False,
) -> None:
    """List the users who have read a message, except those who give no read receipts."""
    with connect(context) as node:
        found = each(node.every("MessageService/GetReaders", user, id=message), "readers")
        show(_READERS, found, _reader_row, Selection(limit, only, as_json))


_READERS = columns("USER,READ UP TO SEQ")


def _reader_row(reader: "pb.Reader") -> tuple[object, ...]:
    return reader.user_id, reader.read_seq


def tail(
    context: typer.Context,
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC", help="users/USER/inbox, groups/GROUP, g:GROUP or a user id.", show_default=False
        ),
    ],
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Start with the first stored entry, not the next one.")
    ] = False,
    after: Annotated[
        int | None,
        typer.Option(min=0, metavar="OFFSET", help="Start after this offset.", show_default=False),
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", "--count", min=1, metavar="COUNT", help="Stop after COUNT entries.")
    ] = None,
) -> None:
    """Print the entries of an inbox or group as they are stored, one JSON object a line, until Ctrl-C."""
    if from_start:
        after = 0
    with (
        suppress(KeyboardInterrupt),
        connect(context) as node,
        closing(node.listen("AdminService/Tail", topic=parsing.topic(topic), after=after)) as entries,
    ):
        for entry in islice(entries, count):
            output.line(output.raw_json(entry.json), flush=True)


def history(
    context: typer.Context,
    conversation: Conversation,
    user: Behalf = None,
    limit: Annotated[
        int, typer.Option("-n", "--limit", min=1, metavar="COUNT", help="At most COUNT messages.")
    ] = 20,
    only: Filter = None,
    before: Annotated[
        int, typer.Option(min=0, metavar="SEQ", help="Only messages before this seq.", show_default=False)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Print the last messages of a conversation, oldest first. Times are local.

    With a filter, the last ones that it selects. With --as, what that user may read."""
    with connect(context) as node:
        messages = _back(node, parsing.conversation(conversation), user, before, limit)
        found = selected(_HISTORY, messages, _row, Selection(limit, only, as_json))[::-1]
    if as_json:
        output.json_array(found)
        return
    output.table(_HISTORY.header, map(_row, found), _HISTORY.text)


_HISTORY = columns("SEQ,ID,TIME,FROM,TYPE,CONTENT", text="CONTENT")


def _back(
    node: "NodeClient", conversation: str, user: str | None, before: int, limit: int
) -> Iterator[bytes]:
    """The messages before seq `before` (0: all), as JSON, the last first. `limit`: how many are probably
    wanted."""
    from broker.domain.message import read_body

    method = "AdminService/History" if user is None else "MessageService/GetMessages"
    some = min(limit, _AT_ONCE)
    while True:
        asked = {"conversation_id": conversation, "before_seq": before or None, "limit": some}
        page = list(node.ask(method, user, **asked).messages)
        yield from reversed(page)
        before = read_body(page[0]).seq if page else 0
        if before <= 1:
            return


def _row(document: bytes) -> tuple[object, ...]:
    from broker.domain.message import read_body
    from cli.entries import in_words

    body = read_body(document)
    return body.seq, body.id, output.local_time(body.created_at), body.from_user_id, body.type, in_words(body)
