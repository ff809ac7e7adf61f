"""Logging in and out, staying logged in, and registering, whatever carries the requests."""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from bridge.core.accounts import NewAccounts, check_password
from bridge.core.bearer import Bearer, Token
from bridge.core.operations import MAX_NAME
from bridge.http_api.attempts import Attempts, TooManyAttemptsError
from broker.domain.directory import SYSTEM
from broker.domain.errors import StoreError
from broker.domain.ids import is_id
from broker.ports import Account, AccountDirectory, DirectoryError, Profile

logger = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds in which a refresh token that was used may come again without harm."""

_MOST_RECENT = 10_000
_ENDED = "ended:"


class LoginAuthenticator(Protocol):
    """Who somebody is. Methods raise `StoreError` when that cannot be told now."""

    async def by_password(self, user: str, password: bytes) -> Account | None: ...

    async def by_token(self, text: str, kind: Literal["access", "refresh"] = "access") -> Bearer | None: ...

    def issue(
        self, user: str, ttl: float, now: float, kind: Literal["access", "refresh"] = "access"
    ) -> str: ...


class Settings(Protocol):
    """Whether anybody may register, and the seconds for which tokens are good."""

    registration: bool
    token_ttl: int
    refresh_ttl: int


class Pair(msgspec.Struct, frozen=True):
    """What a client logs on with, and what it gets the next pair with. `expires_in`: seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    user_id: str
    role: str
    token_type: str = "Bearer"  # noqa: S105  # no secret


class Logins:
    """Methods raise `DirectoryError` (`unauthenticated`, `forbidden`, `invalid`, `exists`,
    `unavailable`), `TooManyAttemptsError`, and `StoreError` when a store failed. `address` is where
    the request comes from; `now` tells Unix seconds; `refused` counts refusals by reason."""

    def __init__(
        self,
        authenticator: LoginAuthenticator | None,
        directory: AccountDirectory,
        new_accounts: NewAccounts,
        attempts: Attempts,
        settings: Settings,
        now: Callable[[], float],
        refused: Counter[str],
    ) -> None:
        self._authenticator_or_none = authenticator
        self._directory = directory
        self._new_accounts = new_accounts
        self._attempts = attempts
        self._settings = settings
        self._now = now
        self._refused = refused
        self._used: dict[str, float] = {}
        """Refresh tokens used lately -> when, the latest last."""

    @property
    def _authenticator(self) -> LoginAuthenticator:
        if self._authenticator_or_none is None:
            raise DirectoryError("unavailable", "plugins.auth.UserAuthPlugin is not loaded: no logins here")
        return self._authenticator_or_none

    async def login(self, user: str, password: str, address: str, device: str | None = None) -> Pair:
        """Tokens for a password. An unknown user, a wrong password and a disabled account are told
        the same, after the same time."""
        _need_id(user)  # said openly, and not remembered by name: it may be long
        started = self._now()
        try:
            attempt = self._attempts.begin(user, address, started)
        except TooManyAttemptsError:
            self._refused["login_rate"] += 1
            raise
        try:
            account = await self._authenticator.by_password(user, password.encode())
        except StoreError:
            attempt.give_back()
            raise
        if account is None:
            self._refused["login"] += 1
            logger.info("login of %s from %s refused", user, address)
            raise DirectoryError("unauthenticated", "wrong user id or password")
        attempt.succeeded()
        logger.info("login of %s from %s, device %r", user, address, device)
        return await self._pair(account, started)

    async def refresh(self, text: str) -> Pair:
        """A new pair for a refresh token, which is not accepted again.

        One that comes again was copied by somebody, and nobody can tell which of the two is the user:
        all tokens of the user are revoked (RFC 9700, 4.14.2). Not so within `GRACE`, when it is
        rather two tabs of one browser, or an answer that got lost: it is only refused then.
        """
        started = self._now()
        bearer = await self._authenticator.by_token(text, "refresh")
        if bearer is None or not self._first_use(bearer.token.id, started):
            raise _not_accepted()
        user, token = bearer.account.user_id, bearer.token
        if bearer.revoked:
            await self._came_again(user, token)
            raise _not_accepted()
        try:
            await self._directory.revoke_token(user, token.id, math.ceil(token.expires_at))
        except BaseException:
            self._used.pop(token.id, None)  # it is good still
            raise
        return await self._pair(bearer.account, started)

    async def logout(self, access: str, refresh: str | None = None, everywhere: bool = False) -> None:
        """Revoke an access token, and the refresh token that belongs to it; or all of the user's, as
        must be if that refresh token was used: it is not known what has become of it."""
        bearer = await self._authenticator.by_token(access)
        if bearer is None or bearer.revoked:
            raise DirectoryError("unauthenticated", "the access token is not accepted")
        user = bearer.account.user_id
        if everywhere:
            await self._revoke_all(user)
            return
        if not bearer.token.id:
            raise DirectoryError("invalid", "this token has no id to revoke it by: log out with all: true")
        other = None if refresh is None else await self._authenticator.by_token(refresh, "refresh")
        if other is not None and other.account.user_id == user:
            if other.revoked:
                await self._came_again(user, other.token)
            else:
                await self._revoke(user, other.token, (_ENDED, ""))
        await self._revoke(user, bearer.token, ("",))

    def need_registration(self) -> None:
        """Refused unless anybody may register."""
        if not self._settings.registration:
            raise DirectoryError("forbidden", "registration is not open on this node")

    async def register(self, user: str, password: str, name: str, address: str) -> Account:
        """A new account of role `user`."""
        self.need_registration()
        if user == SYSTEM:
            raise DirectoryError("invalid", f"user_id: {SYSTEM} is not to be had")
        if len(name) > MAX_NAME:
            raise DirectoryError("invalid", f"name: at most {MAX_NAME} characters, not {len(name)}")
        self._attempts.count(address, self._now())
        _need_id(user)
        try:
            check_password(password)
        except ValueError as error:
            raise DirectoryError("invalid", str(error)) from None
        account = await self._new_accounts.add(user, password)
        if name:
            await self._directory.write_profile(Profile(user, name))
        logger.info("%s has registered from %s", user, address)
        return account

    async def _pair(self, account: Account, started: float) -> Pair:
        """Tokens dated to when the credentials came: if all are revoked meanwhile, these are, too.

        After a revocation that covers the current second, those of the next one are the first good
        ones."""
        issued_at = max(started, float(account.tokens_after))
        if (early := issued_at - self._now()) > 0:
            await asyncio.sleep(min(early, 1.0))
        issue, user, settings = self._authenticator.issue, account.user_id, self._settings
        return Pair(
            issue(user, settings.token_ttl, issued_at),
            issue(user, settings.refresh_ttl, issued_at, "refresh"),
            settings.token_ttl,
            user,
            account.role,
        )

    async def _revoke(self, user: str, token: Token, marks: tuple[str, ...]) -> None:
        for mark in marks:
            await self._directory.revoke_token(user, mark + token.id, math.ceil(token.expires_at))

    async def _came_again(self, user: str, token: Token) -> None:
        """A refresh token that is revoked has come, unless it was ended by logging out: then it is
        from a tab that does not know yet."""
        if not await self._directory.is_revoked(_ENDED + token.id):
            logger.warning("a refresh token of %s came twice: all their tokens are revoked", user)
            await self._revoke_all(user)

    async def _revoke_all(self, user: str) -> None:
        await self._directory.revoke_tokens(user, int(self._now()) + 1)

    def _first_use(self, token_id: str, now: float) -> bool:
        """Whether a refresh token was not used within `GRACE`; it is now."""
        while self._used:
            oldest = next(iter(self._used))
            if now - self._used[oldest] < GRACE and len(self._used) < _MOST_RECENT:
                break
            del self._used[oldest]
        if token_id in self._used:
            return False
        self._used[token_id] = now
        return True


def _need_id(user: str) -> None:
    if not is_id(user):
        raise DirectoryError("invalid", "user_id: not a user id: 1 to 64 of A-Z a-z 0-9 _ . -")


def _not_accepted() -> DirectoryError:
    return DirectoryError("unauthenticated", "the refresh token is not accepted")
