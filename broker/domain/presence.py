"""How a user is: the document that is retained on `users/<id>/presence`."""

import msgspec

STATUSES = ("online", "away", "busy", "offline")


class PresenceDocument(msgspec.Struct, frozen=True):
    """How a user is, as it is retained."""

    user_id: str
    status: str
    """`online`, `away`, `busy` or `offline`."""
    last_seen: int
    """Unix ms; 0 is never."""
    devices: int
    """How many are connected."""


def offline_document(user: str, last_seen: int) -> bytes:
    """The presence of a user whose node went without saying so."""
    return msgspec.json.encode(PresenceDocument(user, "offline", last_seen, 0))
