"""The caller's own connection: `session.renew`."""

from typing import Annotated

import msgspec

from bridge.core.bearer import TokenReader
from bridge.core.operations import Caller, Operations, Parameters
from broker.domain.errors import RefusedError
from broker.ports import BrokerPort, Identity


class RenewParameters(Parameters):
    """The fresh token."""

    token: Annotated[str, msgspec.Meta(max_length=8192)]
    """An access token of the same user."""


class RenewResult(msgspec.Struct):
    """When the connection ends now."""

    expires_at: int
    """Unix ms: the end of the token."""


class Sessions:
    """The handlers. `tokens` is None if the node's authentication has no tokens."""

    def __init__(self, tokens: TokenReader | None, broker: BrokerPort) -> None:
        self._tokens = tokens
        self._broker = broker

    def register(self, operations: Operations) -> None:
        """See `Handlers.register`."""
        operations.add("session.renew", self.renew)

    async def renew(self, caller: Caller, parameters: RenewParameters) -> RenewResult:
        """Let the connection that calls go on with a fresh access token in place of the one that it was
        opened with. It ends with the new token, and when that is revoked. Over MQTT only. A connection that
        was opened with a password does not end, and is refused (`not_found`)."""
        identity = await self._read(caller, parameters.token)
        if not caller.client_id or not await self._broker.renew(caller.client_id, identity):
            raise RefusedError("not_found", "this is not a connection that was opened with a token")
        try:
            # It may have been revoked since it was read, when the connection did not depend on it yet.
            await self._read(caller, parameters.token)
        except RefusedError:
            await self._broker.kick(caller.user)
            raise
        return RenewResult(int((identity.expires_at or 0) * 1000))

    async def _read(self, caller: Caller, token: str) -> Identity:
        bearer = await self._tokens.by_token(token) if self._tokens is not None else None
        if bearer is None or bearer.revoked or bearer.account.user_id != caller.user:
            raise RefusedError("unauthenticated", "the token is not a valid access token of this user")
        read = bearer.token
        return Identity(caller.user, bearer.account.role, read.expires_at, read.id, read.issued_at)
