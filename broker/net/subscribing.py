"""SUBSCRIBE and UNSUBSCRIBE (MQTT 3.1.1, 3.8 and 3.10), answered after the directory and the store."""

import logging

from broker.domain.subscription import by_filter
from broker.net.hub import Hub
from broker.registry import Client
from broker.session.session import Session
from broker.wire import encoder
from broker.wire.packets import SUBSCRIBE_FAILURE, Subscribe, Unsubscribe

logger = logging.getLogger(__name__)


async def subscribe(hub: Hub, client: Client, session: Session, packet: Subscribe) -> None:
    """Subscribe, send SUBACK, then the retained messages. Refused filters are counted and logged.

    Raises:
        StoreError: rights or session state cannot be read or written.
    """
    codes = await hub.subscriptions.subscribe(session, packet.subscriptions)
    client.outbox.send(encoder.suback(packet.packet_id, codes))
    pairs = list(zip(packet.subscriptions, codes, strict=True))
    granted = by_filter(each for each, code in pairs if code != SUBSCRIBE_FAILURE)
    hub.subscriptions.send_retained(session, granted)
    hub.events.subscribed(list(granted.values()), client.publisher.principal)
    refused = [each.topic_filter for each, code in pairs if code == SUBSCRIBE_FAILURE]
    if refused:
        hub.metrics.refused["subscribe"] += len(refused)
        shown = ", ".join(f"{topic_filter:.100}" for topic_filter in refused[:3])
        logger.info(
            "refused %s subscribing to %r, %d in all",
            str(client),
            shown,
            len(refused),
            extra={"client": client.publisher.principal.counted_as, "reason": "subscribe"},
        )


async def unsubscribe(hub: Hub, client: Client, session: Session, packet: Unsubscribe) -> None:
    """Unsubscribe, and send UNSUBACK when the filters are deleted from the store. Raises `StoreError`."""
    await hub.subscriptions.unsubscribe(session, packet.filters)
    client.outbox.send(encoder.unsuback(packet.packet_id))
    hub.events.unsubscribed(packet.filters, client.publisher.principal)
