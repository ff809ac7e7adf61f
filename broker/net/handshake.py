"""CONNECT (MQTT 3.1.1, 3.1): authentication, the session, and the code of CONNACK.

    choose_client_id    the client's id, or a generated one
    admit               authenticates the client and checks its right to publish its will
    connect             both, then attaches the session; again if an account changed in between

Decisions are returned as values and nothing is sent from here, so tests need no socket.
"""

import secrets
from functools import partial
from typing import Protocol

import msgspec

from broker.domain.attempts import TooManyAttemptsError
from broker.domain.errors import RefusedError, StoreError
from broker.domain.publication import Publication
from broker.domain.topics import parse_topic
from broker.ports import Credentials, Gate, Principal, SessionKey
from broker.publish.publisher import Publisher
from broker.registry import Client, Registry
from broker.wire.packets import Connect, ConnectCode

_MAX_CLIENT_ID = 256
"""Characters."""


class ConnectRefusal(msgspec.Struct, frozen=True):
    """Why a CONNECT is refused: the code for CONNACK, and a text for the log line. `counter` is a further
    name it is counted under, besides the code's."""

    code: ConnectCode
    reason: str
    counter: str = ""


class Applicant(Client, Protocol):
    """A connection that has sent its CONNECT."""

    def introduce(self, publisher: Publisher, will: Publication | None) -> None:
        """The client is authenticated and may publish its will."""
        ...

    def accept(self, keep_alive: int, session_present: bool) -> None:
        """The client has its session: send CONNACK 0."""
        ...


async def connect(
    client: Applicant, packet: Connect, peer: tuple[str, int], gate: Gate, registry: Registry
) -> ConnectRefusal | None:
    """Authenticate a client at the address and port `peer` and attach its session. Returns None, or why
    it is refused.

    Nothing of a session is read or changed before the authentication has succeeded.

    Raises:
        StoreError: the session could not be restored after its CONNACK.
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
        client.introduce(Publisher(principal, epoch, client_id), packet.will)
        key = SessionKey(principal.identity.user, client_id)
        try:
            is_attached = await registry.attach(client, key, packet.clean_session, accept)
        except StoreError as error:
            if client.session is not None:  # CONNACK 0 was sent
                raise
            return ConnectRefusal(ConnectCode.SERVER_UNAVAILABLE, f"store failed: {error}")
        except RefusedError as error:
            return ConnectRefusal(ConnectCode.SERVER_UNAVAILABLE, f"user {key.user}: {error.detail}")
    return None


def choose_client_id(packet: Connect) -> str | ConnectRefusal:
    """The client's id, or a generated one if it sent none (3.1.3.1)."""
    client_id = packet.client_id
    if len(client_id) > _MAX_CLIENT_ID:
        reason = f"client id of more than {_MAX_CLIENT_ID} characters"
        return ConnectRefusal(ConnectCode.IDENTIFIER_REJECTED, reason)
    if client_id:
        return client_id
    if not packet.clean_session:  # [MQTT-3.1.3-8]: no client could resume this session
        return ConnectRefusal(ConnectCode.IDENTIFIER_REJECTED, "persistent session without a client id")
    return f"auto-{secrets.token_hex(8)}"


async def admit(gate: Gate, credentials: Credentials, will: Publication | None) -> Principal | ConnectRefusal:
    """The authenticated client, or why it is refused."""
    try:
        principal = await gate.authenticate(credentials)
    except StoreError as error:
        return ConnectRefusal(ConnectCode.SERVER_UNAVAILABLE, str(error))
    except TooManyAttemptsError as error:
        # Not "wrong password": this one was not looked at, and may be right.
        reason = f"authentication of {credentials.username!r}: {error}"
        return ConnectRefusal(ConnectCode.SERVER_UNAVAILABLE, reason, "connect_rate")
    if principal is None:
        reason = f"authentication of {credentials.username!r} failed"
        return ConnectRefusal(ConnectCode.NOT_AUTHORIZED, reason)
    if will is not None:
        refusal = await gate.may_publish(principal, parse_topic(will.topic))
        if refusal is not None:
            reason = f"will on {will.topic[:256]!r}: {refusal.detail[:512]!r}"
            return ConnectRefusal(ConnectCode.NOT_AUTHORIZED, reason)
    return principal
