"""What users may write for durations, recipients and conversations."""

import re

import typer

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
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


def topic(target: str) -> str:
    """The topic of a recipient: a user id, `g:<group>`, or a topic itself. Whether there is such a
    topic the node says."""
    if "/" in target:
        return target
    if target.startswith("g:"):
        return f"groups/{target[2:]}"
    return f"users/{target}/inbox"


def conversation(target: str) -> str:
    """The id of a conversation, which may also be given as a group's topic."""
    return f"g:{target[7:]}" if target.startswith("groups/") else target
