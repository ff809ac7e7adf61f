"""Login, logout, refresh and registration, independent of HTTP."""

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

from bridge.core.accounts import NewAccounts, check_password, next_revocation
from bridge.core.bearer import Bearer, Token
from bridge.core.operations import MAX_NAME
from bridge.core.turns import Turns
from broker.domain.attempts import Attempts, TooManyAttemptsError
from broker.domain.directory import SYSTEM, is_system
from broker.domain.ids import is_id
from broker.domain.rates import network_of
from broker.ports import Account, AccountDirectory, DirectoryError, Profile

logger = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds within which a used refresh token may be sent again without revoking the user's tokens."""

_MOST_RECENT = 10_000
_ENDED = "ended:"
"""Prefix that marks, among the revoked token ids, a refresh token that was revoked by logging out."""


class LoginAuthenticator(Protocol):
    """Checks passwords, reads tokens and issues them. Methods raise `StoreError` if a store fails."""

    async def by_password(self, user: str, password: bytes, address: str) -> Account | None:
        """The account if the password is right and the account is not disabled, else None. The attempt of
        this IP address is counted. Raises `TooManyAttemptsError`."""
        ...

    async def by_token(self, text: str, kind: Literal["access", "refresh"] = "access") -> Bearer | None:
        """A token and its account. None if the token is not valid or not of this kind."""
        ...

    def issue(
        self, account: Account, ttl: float, now: float, kind: Literal["access", "refresh"] = "access"
    ) -> str:
        """A signed token, issued at `now` (Unix seconds) and valid for `ttl` seconds. It is not valid for
        another account with the same id, nor after the tokens of this one were revoked."""
        ...


class Settings(Protocol):
    """Whether registration is open, and for how many seconds access and refresh tokens are valid."""

    registration: bool
    token_ttl: int
    refresh_ttl: int


class Pair(msgspec.Struct, frozen=True):
    """The response to a login: the access token stands for the password, the refresh token gets the next
    pair. `expires_in` is the lifetime of the access token in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    user_id: str
    role: str
    token_type: str = "Bearer"  # noqa: S105  # no secret


class Logins:
    """Login, logout, refresh and registration.

    Methods raise `DirectoryError` (`unauthenticated`, `forbidden`, `invalid`, `exists`, `unavailable`),
    `TooManyAttemptsError`, and `StoreError` if a store failed. Their `address` is the client's IP address.
    `now()` returns Unix seconds, `monotonic()` seconds for the rate limits. `refused` counts refusals by
    reason.
    """

    def __init__(
        self,
        authenticator: LoginAuthenticator | None,
        directory: AccountDirectory,
        new_accounts: NewAccounts,
        attempts: Attempts,
        settings: Settings,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        refused: Counter[str],
    ) -> None:
        self._authenticator_or_none = authenticator
        self._directory = directory
        self._new_accounts = new_accounts
        self._attempts = attempts
        self._settings = settings
        self._now = now
        self._monotonic = monotonic
        self._registering: Turns[str] = Turns()
        self._refused = refused
        self._used: dict[str, float] = {}
        """Ids of recently used refresh tokens -> when they were used, the latest last."""

    @property
    def _authenticator(self) -> LoginAuthenticator:
        if self._authenticator_or_none is None:
            raise DirectoryError("unavailable", "login needs plugins.auth.UserAuthPlugin: it is not loaded")
        return self._authenticator_or_none

    async def login(self, user: str, password: str, address: str, device: str | None = None) -> Pair:
        """Log in with a password. An unknown user, a wrong password and a disabled account get the same
        answer after the same time, so that nobody can find out who has an account."""
        _need_id(user)  # before it is a key of the rate limits: it may be long
        started = self._now()
        try:
            account = await self._authenticator.by_password(user, password.encode(), address)
        except TooManyAttemptsError:
            self._refused["login_rate"] += 1
            raise
        if account is None:
            self._refused["login"] += 1
            about = {"client": network_of(address), "reason": "login refused"}
            logger.info("login of %s from %s refused, device %r", user, address, device, extra=about)
            raise DirectoryError("unauthenticated", "wrong user id or password")
        about = {"client": user, "reason": "login"}
        logger.info("login of %s from %s, device %r", user, address, device, extra=about)
        return self._pair(account, started)

    async def refresh(self, text: str) -> Pair:
        """Exchange a refresh token for a new pair. The token is not accepted again.

        A refresh token that is used twice has been copied, and the node cannot tell the user from the
        thief: so it revokes all tokens of the user (RFC 9700, 4.14.2). Within `GRACE` seconds of the first
        use, the second one is only refused: then it is more likely that two tabs of one browser asked at
        the same time, or that a response got lost.
        """
        started = self._now()
        bearer = await self._authenticator.by_token(text, "refresh")
        if bearer is None or not self._first_use(bearer.token.id, self._monotonic()):
            raise _not_accepted()
        user, token = bearer.account.user_id, bearer.token
        if bearer.revoked:
            await self._came_again(user, token)
            raise _not_accepted()
        try:
            await self._directory.revoke_token(user, token.id, math.ceil(token.expires_at))
        except BaseException:
            self._used.pop(token.id, None)  # it was not revoked: the client may try again
            raise
        return self._pair(bearer.account, started)

    async def logout(self, access: str, refresh: str | None = None, everywhere: bool = False) -> None:
        """Revoke an access token and its refresh token, or with `everywhere` all tokens of the user.

        All tokens are revoked as well if the refresh token was used before: nobody knows who holds the
        pair that it was exchanged for."""
        bearer = await self._authenticator.by_token(access)
        if bearer is None or bearer.revoked:
            raise DirectoryError("unauthenticated", "the access token is not accepted")
        user = bearer.account.user_id
        if everywhere:
            await self._revoke_all(user)
            return
        if not bearer.token.id:
            raise DirectoryError("invalid", "this token has no id, so only all: true can revoke it")
        other = None if refresh is None else await self._authenticator.by_token(refresh, "refresh")
        if other is not None and other.account.user_id == user:
            if other.revoked:
                await self._came_again(user, other.token)
            else:
                await self._revoke(user, other.token, (_ENDED, ""))
        await self._revoke(user, bearer.token, ("",))

    def need_registration(self) -> None:
        """Refuse (`forbidden`) unless registration is open."""
        if not self._settings.registration:
            raise DirectoryError("forbidden", "registration is not open on this node (http.registration)")

    async def register(self, user: str, password: str, name: str, address: str) -> Account:
        """Add an account of the role `user`."""
        self.need_registration()
        if is_system(user):
            raise DirectoryError("invalid", f"user_id: {SYSTEM} is reserved for the server")
        if len(name) > MAX_NAME:
            raise DirectoryError("invalid", f"name: at most {MAX_NAME} characters, not {len(name)}")
        self._attempts.count(address, self._monotonic())
        _need_id(user)
        try:
            check_password(password)
        except ValueError as error:
            raise DirectoryError("invalid", str(error)) from None
        # One at a time from each address: the hashes of new passwords wait in one line.
        async with self._registering.of(network_of(address)):
            account = await self._new_accounts.add(user, password)
        if name:
            await self._directory.write_profile(Profile(user, name))
        logger.info("%s has registered from %s", user, address)
        return account

    def _pair(self, account: Account, started: float) -> Pair:
        """A pair of tokens, issued at `started`, when the credentials arrived. `account` is as it was then:
        if all tokens of the user were revoked since, so are these."""
        issue, settings = self._authenticator.issue, self._settings
        return Pair(
            issue(account, settings.token_ttl, started),
            issue(account, settings.refresh_ttl, started, "refresh"),
            settings.token_ttl,
            account.user_id,
            account.role,
        )

    async def _revoke(self, user: str, token: Token, marks: tuple[str, ...]) -> None:
        for mark in marks:
            await self._directory.revoke_token(user, mark + token.id, math.ceil(token.expires_at))

    async def _came_again(self, user: str, token: Token) -> None:
        """A revoked refresh token was used again: revoke all tokens of the user. Not if it was revoked by
        logging out, as then another tab has not noticed yet."""
        if not await self._directory.is_revoked(_ENDED + token.id):
            logger.warning(
                "a refresh token of %s was used twice: all their tokens are revoked",
                user,
                extra={"client": user, "reason": "refresh token used twice"},
            )
            await self._revoke_all(user)

    async def _revoke_all(self, user: str) -> None:
        account = await self._directory.account(user)
        if account is not None:
            await self._directory.revoke_tokens(user, next_revocation(account, self._now()))

    def _first_use(self, token_id: str, now: float) -> bool:
        """Record the use of a refresh token. False if it was used within the last `GRACE` seconds."""
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
        raise DirectoryError("invalid", "user_id: expected 1 to 64 of the characters A-Z a-z 0-9 _ . -")


def _not_accepted() -> DirectoryError:
    return DirectoryError("unauthenticated", "the refresh token is not accepted")
