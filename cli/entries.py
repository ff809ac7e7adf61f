"""Describes the entries of a conversation in words, for `imctl history`."""

from typing import Any

import msgspec

from broker.domain.message import Body
from cli import output

_SENTENCES = {
    "group_created": "{by} created the group with {users}",
    "group_updated": "{by} changed the group: {values}",
    "group_dismissed": "{by} dismissed the group",
    "members_added": "{by} added {users}",
    "members_removed": "{by} removed {users}",
    "member_joined": "{users} joined",
    "member_left": "{users} left",
    "member_banned": "{by} banned {users}{until}",
    "member_unbanned": "{by} took back the ban of {users}",
    "role_set": "{by} made {users} {role}",
    "owner_changed": "{by} made {users} the owner",
    "contact_requested": "{by} asked {user_id} to be a contact{note}",
    "contact_accepted": "{by} accepted {user_id} as a contact",
    "contact_rejected": "{by} rejected the contact request of {user_id}{note}",
}
_MUTED = {
    "group_muted": ("{by} muted the group{until}", "{by} unmuted the group"),
    "member_muted": ("{by} muted {users}{until}", "{by} unmuted {users}"),
}

_WITHHELD = {"not_visible": "not visible", "damaged": "damaged: the node has lost what it says"}


def in_words(body: Body) -> str:
    """An entry as one line of text."""
    if body.withheld is not None:
        return f"({_WITHHELD[body.withheld]})"
    if body.recalled_at is not None:
        return "(recalled)"
    match body.type:
        case "recall":
            return f"message {body.target_id} was recalled"
        case "edit":
            return f"message {body.target_id} says now: {_text(body.content)}"
        case "system":
            return _sentence(body.content)
    return _text(body.content) + (" (edited)" if body.edited_at is not None else "")


def _text(content: msgspec.Raw) -> str:
    """A content: text as it is, anything else as JSON."""
    raw = bytes(content)
    return msgspec.json.decode(raw, type=str) if raw.startswith(b'"') else output.raw_json(raw)


def _sentence(content: msgspec.Raw) -> str:
    """A change of a group or contact as a sentence. An unknown one, from a newer node, as JSON."""
    try:
        said: dict[str, Any] = msgspec.json.decode(content)
        event = said["event"]
        muted, unmuted = _MUTED.get(event, (None, None))
        sentence = _SENTENCES.get(event) or (muted if said.get("until") else unmuted)
        return str(sentence).format_map(_words(said)) if sentence else output.raw_json(bytes(content))
    except (KeyError, TypeError, AttributeError):
        return output.raw_json(bytes(content))


def _words(said: dict[str, Any]) -> dict[str, Any]:
    users = said.get("user_ids", [])
    more = said.get("count", len(users)) - len(users)
    names = ("event", "by", "user_ids", "count")
    values = [f"{name}: {value}" for name, value in said.items() if name not in names]
    until = said.get("until", 0)
    return said | {
        "users": ", ".join(users) + (f" and {more} more" if more else ""),
        "values": ", ".join(values),
        "until": f" {output.until(until)}" if until else "",
        "note": f": {said['note']}" if said.get("note") else "",
    }
