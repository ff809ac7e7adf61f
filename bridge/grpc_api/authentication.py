"""Authenticates calls by their metadata: `authorization: Bearer <token>` and `im-on-behalf-of: <user>`."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

import msgspec

from bridge.core.bearer import TokenReader
from bridge.core.operations import THE_SYSTEM, Caller
from bridge.grpc_api.changes import Changes
from broker.domain.acting import acting_for
from broker.domain.directory import SYSTEM
from broker.domain.errors import RefusedError
from broker.domain.ids import is_id
from broker.ports import AccountChanged, AccountDirectory, DirectoryChange, Identity, TokenRevoked

ON_BEHALF_OF = "im-on-behalf-of"

_SYSTEM_ROLES = ("admin", "service")

Metadata = Iterable[tuple[str, str | bytes]]


class Call(msgspec.Struct, frozen=True):
    """An authenticated call. `administers`: it may use `im.AdminService`. `users`: the accounts it depends
    on. `expires_at`: when its token expires, in Unix seconds."""

    caller: Caller
    administers: bool = False
    users: frozenset[str] = frozenset()
    expires_at: float | None = None


CALL: ContextVar[Call] = ContextVar("CALL")
"""The call that is being served."""


class CallAuthenticator:
    """Accepts the node's `admin_token` and, if `tokens` is given, the tokens of accounts."""

    def __init__(
        self,
        admin_token: str,
        directory: AccountDirectory | None = None,
        tokens: TokenReader | None = None,
        changes: Changes | None = None,
    ) -> None:
        self._expected = admin_token.encode()
        self._directory = directory
        self._tokens = tokens
        self._changes = changes or Changes()

    async def authenticate(self, metadata: Metadata) -> Call:
        """Find out who calls.

        Raises:
            RefusedError: `unauthenticated`; `not_authorized`: an ordinary user acts on behalf of another;
                `not_found`, `disabled`: the user on whose behalf the call is made does not exist or is
                disabled; `invalid_params`: `im-on-behalf-of` is not one user id.
            StoreError: the directory failed.
        """
        given = list(metadata)
        identity = await self._identify([_octets(value) for key, value in given if key == "authorization"])
        is_system = identity.role in _SYSTEM_ROLES
        behalf = [_octets(value).decode(errors="replace") for key, value in given if key == ON_BEHALF_OF]
        users = frozenset({identity.user, *behalf} - {SYSTEM})
        if not behalf:
            caller = THE_SYSTEM if is_system else Caller(identity.user)
        elif not is_system:
            raise RefusedError("not_authorized", "only administrators and services act on behalf of users")
        else:
            caller = await self._on_behalf(behalf)
        administers = identity.role == "admin" and caller.is_system
        return Call(caller, administers, users, identity.expires_at)

    async def _identify(self, given: list[bytes]) -> Identity:
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        if scheme.lower() == b"bearer":
            if hmac.compare_digest(token, self._expected):
                return Identity(SYSTEM, "admin")
            text = token.decode(errors="replace")
            acting_for(f"bearer {text}")  # whose it is turns out later
            bearer = await self._tokens.by_token(text) if self._tokens else None
            if bearer is not None and not bearer.revoked:
                account = bearer.account
                return Identity(account.user_id, account.role, bearer.token.expires_at)
        raise RefusedError("unauthenticated", "the token is missing or not valid")

    async def _on_behalf(self, given: list[str]) -> Caller:
        user = given[0]
        if len(given) > 1 or not is_id(user):
            raise RefusedError("invalid_params", f"{ON_BEHALF_OF}: expected one user id")
        account = await self._directory.account(user) if self._directory is not None else None
        if account is None:
            raise RefusedError("not_found", f"no user {user}")
        if account.disabled:
            raise RefusedError("disabled", f"user {user} is disabled")
        return Caller(user, by_service=True)

    def standing(self, call: Call, metadata: Metadata) -> "Standing":
        """Watch the credential of a call that streams, for as long as it lasts."""
        return Standing(lambda: self.authenticate(metadata), call, self._changes)


class Standing:
    """Watches the credential of a long call. It is checked again whenever one of the accounts it depends
    on has changed, and when its token expires. The owner must call `close`."""

    def __init__(self, again: Callable[[], Awaitable[Call]], call: Call, changes: Changes) -> None:
        self._again = again
        self._call = call
        self.close = changes.watch(self._changed)
        self._doubt = asyncio.get_running_loop().create_future()
        self._doubt.set_result(None)  # the account may have changed since the call was authenticated

    def _changed(self, change: DirectoryChange) -> None:
        concerns = isinstance(change, AccountChanged | TokenRevoked) and change.user_id in self._call.users
        if concerns and not self._doubt.done():
            self._doubt.set_result(None)

    async def hold(self, waiting: "asyncio.Future[Any]") -> None:
        """Wait until `waiting` is done. On return the call's credential is still valid.

        Raises:
            RefusedError: it is not: the token expired or was revoked, or the account has changed.
            StoreError: it could not be checked.
        """
        while True:
            left = None if self._call.expires_at is None else self._call.expires_at - time.time()
            if left is not None and left <= 0:
                raise RefusedError("unauthenticated", "the token has expired")
            if self._doubt.done():
                self._doubt = asyncio.get_running_loop().create_future()
                if (await self._again()).caller != self._call.caller:
                    raise RefusedError("unauthenticated", "the account's role has changed")
            elif waiting.done():
                return
            else:
                both = (waiting, self._doubt)
                await asyncio.wait(both, timeout=left, return_when=asyncio.FIRST_COMPLETED)


def _octets(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
