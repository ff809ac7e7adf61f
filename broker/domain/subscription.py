"""A subscription: a topic filter and how its messages are wanted (3.8)."""

from collections.abc import Iterable

import msgspec


class Subscription(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """As a client asked for it. MQTT 3.1.1 has the QoS only; the defaults are its behaviour."""

    topic_filter: str
    qos: int
    no_local: bool = False
    """Not what the session itself publishes (MQTT 5, 3.8.3.1)."""
    retain_as_published: bool = False
    retain_handling: int = 0
    """When to send what is retained: 0 at each SUBSCRIBE, 1 at a new subscription, 2 never."""
    identifier: int = 0
    """Sent along with each message of it (MQTT 5, 3.8.2.1.2); 0 is none."""


def by_filter(subscriptions: Iterable[Subscription]) -> dict[str, Subscription]:
    """Subscriptions by their filters; of two with the same filter the last one holds [MQTT-3.8.4-3]."""
    return {each.topic_filter: each for each in subscriptions}
