"""A subscription: a topic filter and its options (MQTT 3.8)."""

from collections.abc import Iterable

import msgspec


class Subscription(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """A subscription as the client requested it. MQTT 3.1.1 has no option but the QoS; the defaults of the
    others are its behaviour."""

    topic_filter: str
    qos: int
    no_local: bool = False
    """Do not deliver the client's own publications (MQTT 5, 3.8.3.1)."""
    retain_as_published: bool = False
    """Deliver the RETAIN flag as published (MQTT 5, 3.8.3.1)."""
    retain_handling: int = 0
    """When to send retained messages: 0 at each SUBSCRIBE, 1 at a new subscription only, 2 never."""
    identifier: int = 0
    """Sent with each message of this subscription (MQTT 5, 3.8.2.1.2); 0 for none."""


def by_filter(subscriptions: Iterable[Subscription]) -> dict[str, Subscription]:
    """Subscriptions by filter. The last one with the same filter replaces the others [MQTT-3.8.4-3]."""
    return {each.topic_filter: each for each in subscriptions}
