"""A publication: what one publishes and many receive, whatever it passes through.

    decoder -> pipeline -> log, queue or retained store -> session -> encoder

Each of these has the same fields here instead of a list of parameters of its own.
"""

import msgspec


class Properties(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a publication carries beside its topic and payload: the properties of MQTT 5 that a
    server hands on (3.3.2.3), and the trace context. Most publications have none of it."""

    payload_format: int | None = None
    """1: the payload is UTF-8 (3.3.2.3.2)."""
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    user: tuple[tuple[str, str], ...] = ()
    """User properties, in their order; a name may come more than once (3.3.2.3.7)."""
    expires_at: int | None = None
    """Unix ms after which it is not delivered any more (3.3.2.3.3)."""
    trace: str | None = None
    """The W3C `traceparent` of the publish."""


class Publication(msgspec.Struct, frozen=True, gc=False):
    """A message of a topic. `retain` is the flag as published (3.3.1.3)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None
    """None where there are none, which costs nothing."""
