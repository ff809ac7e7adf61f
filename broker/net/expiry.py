"""Tells a client that its token is about to end, so that it can get a fresh one and call `session.renew`."""

import msgspec

from broker.domain.publication import Publication
from broker.ports import Principal
from broker.session.session import Session
from broker.wire.encoder import Outgoing


def announce(session: Session, principal: Principal) -> bool:
    """Send the event `token_expiring` to this session only: the user's other devices have tokens of their
    own. Returns False if the session is not subscribed to its user's events."""
    topic = f"users/{session.key.user}/events"
    granted = session.grants.get(topic)
    expires_at = principal.identity.expires_at
    if granted is None or expires_at is None:
        return False
    event = {"event": "token_expiring", "at": int(expires_at * 1000)}
    session.offer(Outgoing(Publication(topic, msgspec.json.encode(event), 1)), min(granted, 1))
    return True
