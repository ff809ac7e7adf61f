"""CONNECT (MQTT 3.1.1, 3.1): who the client is, whether it may come in, and what CONNACK says.

    choose_client_id    its client id, or one that is made up for it
    admit               is it who it says, and may it leave its will?
    connect             both, then its session; again, if an account changed meanwhile

What is decided is a value, so nothing here needs an event loop.
"""

import secrets
from functools import partial
from typing import Protocol

import msgspec

from broker.domain.errors import StoreError
from broker.domain.publication import Publication
from broker.domain.topics import parse_topic
from broker.ports import Credentials, Gate, Principal, SessionKey
from broker.publish.publisher import Publisher
from broker.registry import Client, Registry
from broker.wire.packets import Connect, ConnectCode

_MAX_CLIENT_ID = 256
"""Characters."""


class ConnectRefusal(msgspec.Struct, frozen=True):
    """Why a CONNECT is refused: what CONNACK says, and words for the log line."""

    code: ConnectCode
    reason: str


class Applicant(Client, Protocol):
    """A connection that has sent its CONNECT."""

    def introduce(self, publisher: Publisher, will: Publication | None) -> None:
        """It is known who the client is."""
        ...

    def accept(self, keep_alive: int, session_present: bool) -> None:
        """The client is in, and has its session: say so with CONNACK."""
        ...


async def connect(
    client: Applicant, packet: Connect, peer: tuple[str, int], gate: Gate, registry: Registry
) -> ConnectRefusal | None:
    """Let a client in, who is at the address and port `peer`; or say why not.

    Raises:
        StoreError: its session could not be loaded.
    """
    client_id = choose_client_id(packet)
    if isinstance(client_id, ConnectRefusal):
        return client_id
    credentials = Credentials(client_id, packet.username, packet.password, *peer)
    accept = partial(client.accept, packet.keep_alive)
    is_attached = False
    while not is_attached:
        epoch = registry.epoch
        principal = await admit(gate, credentials, packet.will)
        if isinstance(principal, ConnectRefusal):
            return principal
        client.introduce(Publisher(principal, epoch), packet.will)
        key = SessionKey(principal.identity.user, client_id)
        is_attached = await registry.attach(client, key, packet.clean_session, accept)
    return None


def choose_client_id(packet: Connect) -> str | ConnectRefusal:
    """The client's own id, or a new one for a client without (3.1.3.1)."""
    client_id = packet.client_id
    if len(client_id) > _MAX_CLIENT_ID:
        reason = f"client id of more than {_MAX_CLIENT_ID} characters"
        return ConnectRefusal(ConnectCode.IDENTIFIER_REJECTED, reason)
    if client_id:
        return client_id
    if not packet.clean_session:  # [MQTT-3.1.3-8]: nobody could come back to it
        return ConnectRefusal(ConnectCode.IDENTIFIER_REJECTED, "persistent session without a client id")
    return f"auto-{secrets.token_hex(8)}"


async def admit(gate: Gate, credentials: Credentials, will: Publication | None) -> Principal | ConnectRefusal:
    """Who the client is, or why it may not come in."""
    try:
        principal = await gate.authenticate(credentials)
    except StoreError as error:
        return ConnectRefusal(ConnectCode.SERVER_UNAVAILABLE, str(error))
    if principal is None:
        reason = f"authentication of {credentials.username!r} failed"
        return ConnectRefusal(ConnectCode.NOT_AUTHORIZED, reason)
    if will is not None:
        refusal = await gate.may_publish(principal, parse_topic(will.topic))
        if refusal is not None:
            reason = f"will on {will.topic[:256]!r}: {refusal.detail[:512]!r}"
            return ConnectRefusal(ConnectCode.NOT_AUTHORIZED, reason)
    return principal
