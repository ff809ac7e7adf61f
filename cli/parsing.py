"""Parses the ids, durations, recipients and conversations that users type."""

import re
import time
from collections.abc import Mapping
from typing import Any

import typer

from cli.errors import CommandError

FOR_EVER = 253_402_214_400_000
"""Unix ms, the last day of the year 9999: means "no end" where the node needs a time."""

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_MESSAGE_ID = re.compile(r"\d{1,18}|[1-8]\d{18}", re.ASCII)
_USERS = ("user_id", "user_ids", "members")
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


def duration(text: str | int) -> int:
    """A duration in seconds: `3600`, `90s`, `30m`, `12h`, `7d`, `1h30m`.

    Raises:
        typer.BadParameter: the text is not a duration.
    """
    if isinstance(text, int):  # the default of an option
        return text
    if _SECONDS.fullmatch(text):
        return int(text)
    match = _DURATION.fullmatch(text) if len(text) <= 32 else None
    if not text or match is None:
        raise typer.BadParameter(f"{text!r} is not a duration: give seconds, or e.g. 30m, 12h, 7d, 1h30m")
    return sum(int(number or 0) * unit for number, unit in zip(match.groups(), _UNITS.values(), strict=True))


def until(seconds: int | None) -> int:
    """The time that many seconds from now, in Unix ms. None: `FOR_EVER`."""
    return FOR_EVER if seconds is None else min(FOR_EVER, int(time.time() * 1000) + seconds * 1000)


def need_a_setting(settings: Mapping[str, Any]) -> None:
    """Raises `BadParameter` if no setting is given."""
    if all(value is None for value in settings.values()):
        raise typer.BadParameter("give at least one setting to change")


def need_ids(values: Mapping[str, Any]) -> None:
    """Check the fields of a request that must hold ids, before a node is asked.

    Raises:
        CommandError: one of them is not an id.
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
    """The topic of a recipient: of a user id, `g:<group>`, or a topic itself. The node checks whether it
    exists."""
    if "/" in target:
        return target
    if target.startswith("g:"):
        return f"groups/{target[2:]}"
    return f"users/{target}/inbox"


def recipient(target: str) -> dict[str, str]:
    """A recipient as a field of a request: `user_id` or `group_id`. It is written as for `topic`.

    Raises:
        CommandError: it is a topic that takes no messages.
    """
    match topic(target).split("/"):
        case ["users", user, "inbox"]:
            return {"user_id": user}
        case ["groups", group]:
            return {"group_id": group}
    raise CommandError(f"{_short(target)} is not an inbox or group topic (users/<id>/inbox, groups/<id>)")


def conversation(target: str) -> str:
    """The id of a conversation. It may also be given as a group's topic, and a private one with its users
    in either order."""
    match target.split(":"):
        case ["p", one, other]:
            return f"p:{min(one, other)}:{max(one, other)}"
    return f"g:{target[7:]}" if target.startswith("groups/") else target
