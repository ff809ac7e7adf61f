"""`imctl send`, `tail` and `history`."""

import os
from contextlib import closing, suppress
from itertools import islice
from typing import Annotated, Any

import typer

from cli import output, parsing
from cli.context import Json, connect

To = Annotated[
    str,
    typer.Argument(
        metavar="TO", help="A user id, g:GROUP, groups/GROUP or users/USER/inbox.", show_default=False
    ),
]


def send(
    context: typer.Context,
    to: To,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The payload.", show_default=False)],
    sender: Annotated[str, typer.Option("--as", metavar="USER", help="The sender.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Send a message as a user, as if they had published TEXT: a JSON object with a "content" is a
    message with all its fields, anything else is text."""
    with connect(context) as node:
        sent = node.send(sender, parsing.topic(to), os.fsencode(text))
    if as_json:
        output.json_value(
            {
                "id": sent.id,
                "conversation_id": sent.conversation_id,
                "seq": sent.seq,
                "created_at": sent.created_at,
            }
        )
        return
    output.line(f"sent {sent.id} to {sent.conversation_id} as seq {sent.seq}")


def tail(
    context: typer.Context,
    topic: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC", help="users/USER/inbox, groups/GROUP, g:GROUP or a user id.", show_default=False
        ),
    ],
    from_start: Annotated[bool, typer.Option("--from-start", help="Everything stored first.")] = False,
    count: Annotated[
        int | None, typer.Option("-n", "--count", min=1, metavar="COUNT", help="Stop after COUNT messages.")
    ] = None,
) -> None:
    """Print what is stored in an inbox or group, one JSON a line, until Ctrl-C."""
    after = 0 if from_start else None
    with (
        suppress(KeyboardInterrupt),
        connect(context) as node,
        closing(node.tail(parsing.topic(topic), after)) as entries,
    ):
        for entry in islice(entries, count):
            output.line(output.raw_json(entry), flush=True)


def history(
    context: typer.Context,
    conversation: Annotated[
        str,
        typer.Argument(metavar="CONVERSATION", help="p:USER:USER or g:GROUP.", show_default=False),
    ],
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, help="How many at most.")] = 20,
    before: Annotated[
        int, typer.Option(min=0, metavar="SEQ", help="Only those before this one.", show_default=False)
    ] = 0,
    as_json: Json = False,
) -> None:
    """Print the last messages of a conversation, the oldest of them first. Times are local."""
    with connect(context) as node:
        messages = node.history(parsing.conversation(conversation), before, limit)
    if as_json:
        output.json_array(messages)
        return
    output.table(("SEQ", "TIME", "FROM", "TYPE", "CONTENT"), map(_row, messages))


def _row(document: bytes) -> tuple[object, ...]:
    from broker.domain.message import read_body

    body = read_body(document)
    return body.seq, output.local_time(body.created_at), body.from_user_id, body.type, _text(body.content)


def _text(content: Any) -> str:
    """Text as it is, any other content as JSON."""
    import msgspec

    raw = bytes(content)
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else output.raw_json(raw)
