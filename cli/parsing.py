"""What users may write for ids, durations, recipients and conversations."""

import re
import time
from collections.abc import Mapping
from typing import Any

import typer

from cli.errors import CommandError

FOR_EVER = 253_402_214_400_000
"""Unix ms. The last day of the year 9999, which stands for no end where one must be given."""

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_MESSAGE_ID = re.compile(r"\d{1,18}|[1-8]\d{18}", re.ASCII)
_USERS = ("user_id", "user_ids", "members")
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


def duration(text: str | int) -> int:
    """Seconds: `3600`, `90s`, `30m`, `12h`, `7d`, `1h30m`.

    Raises:
        typer.BadParameter: it is none of these.
    """
    if isinstance(text, int):
        return text
    if _SECONDS.fullmatch(text):
        return int(text)
    match = _DURATION.fullmatch(text) if len(text) <= 32 else None
    if not text or match is None:
        raise typer.BadParameter(f"{text!r} is not a duration: seconds, or like 30m, 12h, 7d, 1h30m")
    return sum(int(number or 0) * unit for number, unit in zip(match.groups(), _UNITS.values(), strict=True))


def until(seconds: int | None) -> int:
    """The Unix ms that many seconds from now; None: for ever."""
    return FOR_EVER if seconds is None else min(FOR_EVER, int(time.time() * 1000) + seconds * 1000)


def need_ids(values: Mapping[str, Any]) -> None:
    """Look at what by its name must be an id, before a node is asked.

    Raises:
        CommandError: one is none.
    """
    from broker.domain.ids import is_id

    for name, value in values.items():
        if name in ("id", "reply_to"):
            if not _MESSAGE_ID.fullmatch(value):
                raise CommandError(f"{_short(value)} is not a message id")
        elif name in _USERS or name == "group_id":
            kind = "group" if name == "group_id" else "user"
            for text in [value] if isinstance(value, str) else value:
                if not is_id(text):
                    raise CommandError(f"{_short(text)} is not a {kind} id: 1 to 64 of A-Z a-z 0-9 _ . -")


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


def topic(target: str) -> str:
    """The topic of a recipient: a user id, `g:<group>`, or a topic itself. Whether there is such a
    topic the node says."""
    if "/" in target:
        return target
    if target.startswith("g:"):
        return f"groups/{target[2:]}"
    return f"users/{target}/inbox"


def recipient(target: str) -> dict[str, str]:
    """Who is meant by what `topic` reads, as a field of a request.

    Raises:
        CommandError: it is a topic nobody is sent to by.
    """
    match topic(target).split("/"):
        case ["users", user, "inbox"]:
            return {"user_id": user}
        case ["groups", group]:
            return {"group_id": group}
    raise CommandError(f"{_short(target)} is not an inbox or group topic: users/<id>/inbox or groups/<id>")


def conversation(target: str) -> str:
    """The id of a conversation, which may also be given as a group's topic, or with its two users in
    either order."""
    match target.split(":"):
        case ["p", one, other]:
            return f"p:{min(one, other)}:{max(one, other)}"
    return f"g:{target[7:]}" if target.startswith("groups/") else target
