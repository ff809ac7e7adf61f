"""PUBACK, PUBREC, PUBREL and PUBCOMP (MQTT 3.1.1, 3.4 to 3.7)."""

from broker.session.session import Session
from broker.wire.packets import Ack, Type


def acknowledged(packet: Ack, session: Session) -> None:
    """The client has acknowledged a packet of a session."""
    packet_id = packet.packet_id
    match packet.type:
        case Type.PUBACK:
            session.puback(packet_id)
        case Type.PUBREC:
            session.pubrec(packet_id)
        case Type.PUBCOMP:
            session.pubcomp(packet_id)
        case Type.PUBREL:
            session.inbound.pubrel(packet_id)
