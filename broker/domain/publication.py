"""A publication: a message of a topic, on its whole way through the broker.

    decoder -> pipeline -> log, queue or retained store -> session -> encoder

One type for all these steps, so that a new field need not be added to each of them.
"""

import msgspec


class Properties(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The MQTT 5 properties of a publication that a server forwards (MQTT 5, 3.3.2.3), and its trace
    context. Most publications have none."""

    payload_format: int | None = None
    """1 if the payload is UTF-8 (3.3.2.3.2)."""
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()
    """User properties in the publisher's order. A name may occur more than once (3.3.2.3.7)."""
    expires_at: int | None = None
    """Unix ms after which the message is not delivered (3.3.2.3.3)."""
    trace: str | None = None
    """The W3C `traceparent` of the publish."""


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A message of a topic. `retain` is the publisher's flag (MQTT 3.1.1, 3.3.1.3)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None
    """None if there are none, which costs no memory."""
