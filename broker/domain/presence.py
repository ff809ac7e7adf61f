"""The presence document: the retained message on `users/<id>/presence`."""

import msgspec

STATUSES = ("online", "away", "busy", "offline")


class PresenceDocument(msgspec.Struct, frozen=True):
    """A user's presence. The retained message is its JSON."""

    user_id: str
    status: str
    """`online`, `away`, `busy` or `offline`."""
    last_seen: int
    """Unix ms; 0 for never."""
    devices: int
    """The number of connected devices."""


def offline_document(user: str, last_seen: int) -> bytes:
    """The presence of a user whose node died before it could publish `offline`. `last_seen` in Unix ms."""
    return msgspec.json.encode(PresenceDocument(user, "offline", last_seen, 0))
