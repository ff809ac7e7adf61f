"""Authentication by password or token, the same for MQTT, gRPC and HTTP."""

import time
from collections.abc import Callable

import msgspec

from broker.domain.attempts import Attempts
from broker.ports import Account, AccountDirectory
from plugins.auth.passwords import Passwords, Told
from plugins.auth.tokens import Kind, Token, Tokens


class Bearer(msgspec.Struct, frozen=True):
    """A valid token and the account it was issued to. A `revoked` token must not be accepted."""

    token: Token
    account: Account
    revoked: bool


class Authenticator:
    """Checks passwords and tokens against the directory.

    Both methods raise `StoreError` when the directory, the key file or the hashing threads cannot
    answer now."""

    def __init__(
        self,
        directory: AccountDirectory,
        passwords: Passwords,
        tokens: Tokens,
        attempts: Attempts,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._passwords = passwords
        self._attempts = attempts
        self._now = now
        self.reload_keys = tokens.reload
        self.key_file = tokens.file
        self._tokens = tokens

    def issue(self, account: Account, ttl: float, now: float, kind: Kind = "access") -> str:
        """A token for this account that ends at `now + ttl` (Unix seconds)."""
        return self._tokens.issue(account.user_id, ttl, now, kind, account)

    async def by_password(self, user: str, password: bytes, address: str) -> Account | None:
        """The account, or None if there is none, it is disabled, or the password is wrong. `address` is
        the client's IP address.

        An unknown user takes as long as a wrong password, so the time does not reveal which user ids
        exist.

        Raises:
            TooManyAttemptsError: too many passwords of this user or from this address were wrong. The
                password was not looked at.
        """
        # Before the cache of right passwords is asked: else a right guess would show although the limit
        # is reached.
        self._attempts.check(user, address, self._now())
        account = await self._directory.account(user)
        hashed = account.password_hash if account else None
        accepted = account is not None and not account.disabled

        def admit() -> Told:
            # Counted when its turn comes, not when it arrives: devices that come back at once with the
            # right password wait for one another, and none of them counts as a failure.
            attempt = self._attempts.begin(user, address, self._now())
            return lambda right: attempt.succeeded() if right and accepted else None

        line = self._attempts.line(user, address)
        right = await self._passwords.verify(password, hashed, user, line, admit)
        if not right or not accepted:
            return None
        self._attempts.remember(user, address)
        return account

    async def by_token(self, text: str, kind: Kind = "access") -> Bearer | None:
        """The token and its account. None if the token is not valid or not of this kind, if the account
        is disabled, or if the token was issued to an earlier account with the same id."""
        token = self._tokens.verify(text, kind)
        account = await self._directory.account(token.user) if token is not None else None
        if token is None or account is None or account.disabled or not _is_for(token, account):
            return None
        revoked = bool(token.id) and await self._directory.is_revoked(token.id)
        return Bearer(token, account, revoked)


def _is_for(token: Token, account: Account) -> bool:
    """Whether the token was issued after this account was made and after its last "revoke all".

    An older token may belong to a removed account with the same id. Tokens without an id were issued
    by earlier versions in whole seconds, so `created_at` is rounded down for them."""
    if token.account is not None:
        return token.account == account.created_at and token.issued_at >= account.tokens_after
    created_at = account.created_at / 1000 if token.id else account.created_at // 1000
    return token.issued_at >= max(created_at, account.tokens_after)
