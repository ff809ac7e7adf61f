"""PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 3.1.1, 3.4 to 3.7)."""

from broker.session.session import Session
from broker.wire.packets import Ack, Type

# As module globals, because looking up a member on its enum class costs five times as much.
_PUBACK, _PUBREC, _PUBREL = Type.PUBACK, Type.PUBREC, Type.PUBREL


def acknowledge(packet: Ack, session: Session) -> None:
    """Hand a client's acknowledgement to its session."""
    packet_id = packet.packet_id
    kind = packet.type
    if kind == _PUBACK:
        session.puback(packet_id)
    elif kind == _PUBREC:
        session.pubrec(packet_id)
    elif kind == _PUBREL:
        session.inbound.pubrel(packet_id)
    else:
        session.pubcomp(packet_id)
