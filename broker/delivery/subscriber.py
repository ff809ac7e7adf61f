"""The members of the routing tables."""

from broker.delivery.screened import Screened
from broker.session.session import Session

Subscriber = Session | Screened
"""Both have `offer(outgoing, qos)`, `offer_entry(topic, offset, outgoing)`, `key`, and `tails` by topic."""
